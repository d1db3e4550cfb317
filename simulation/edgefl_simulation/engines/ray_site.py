"""The part of the Ray engine that is on the nodes of a cluster: an actor, which is every device in turn."""

from __future__ import annotations

import os
import platform
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgefl.errors import EdgeflError, RuntimeFailure, first_line
from edgefl.version import __version__
from edgefl_simulation.engines.base import Job, Setup, Vectors, Worked
from edgefl_simulation.engines.performing import Performer
from edgefl_simulation.memories import Memories

__all__ = ["MARK", "Done", "Failed", "Loaded", "Pieces", "Site", "continued", "pieces_of"]

MARK = "mark"
"""A file among the tables that tells whether another machine sees the same folder."""
_PIECE = 64 << 20
"""Bytes of a file that travel as one object."""

Pieces = Sequence[tuple[str, Any]]
"""Names of files, and references to arrays of bytes to be written behind each other."""


@dataclass(frozen=True)
class Loaded:
    """The actor is ready.

    Attributes:
        versions: of all that may make a difference to the results.
    """

    versions: str


@dataclass(frozen=True)
class Failed:
    """The reason for which something could not be done, beside all that is an outcome."""

    error: EdgeflError


@dataclass(frozen=True)
class Done:
    """The result of a job, and what the device remembers at its end, packed as `Memories` does; None: nothing."""

    worked: Worked
    memory: bytes | None


class Site:
    """An actor with one interpreter.

    Args:
        setup: what all jobs have in common; its paths are those of the machine on which the simulation runs.
        mark: what the file `MARK` among the tables holds.
    """

    def __init__(self, setup: Setup, mark: str) -> None:
        # What devices remember comes with each job and goes with its result: the next one may be done elsewhere.
        self._own = Path(tempfile.mkdtemp(prefix="edgefl-site-"))
        self._memories = Memories(self._own / "memories")
        self._setup, self._mark = replace(setup, memories=self._own / "memories"), mark
        self._performer: Performer | None = None

    def load(self, pieces: Pieces | None = None) -> Loaded | Failed | None:
        """Loads model and tables.

        Args:
            pieces: of their files, where this machine does not see them.

        Returns:
            None: it does not see them, and they were not given.
        """
        try:
            if pieces is not None:
                self._setup = self._received(pieces)
            elif not self._sees():
                return None
            self._performer = Performer(self._setup)
        except Exception as error:
            return Failed(_telling(error))
        return Loaded(_versions())

    def do(self, job: Job, vectors: Vectors, memory: bytes | None) -> Done | Failed:
        """Does a job.

        Args:
            job: that is to be done.
            vectors: that it starts from; they lie in the memory that all actors of a machine share.
            memory: what the device remembers of the task that the job goes on from, packed.
        """
        assert self._performer is not None
        task = job.task
        try:
            if memory is not None:
                self._memories.put(continued(job), memory)
            worked = self._performer.do(job, vectors)
            kept = self._memories.packed(task.task_id)
        except Exception as error:
            return Failed(_telling(error))
        finally:
            self._memories.keep_only(())
        return Done(worked, kept)

    def leave(self) -> None:
        """Deletes what it has written on its machine."""
        shutil.rmtree(self._own, ignore_errors=True)
        shutil.rmtree(self._shared(), ignore_errors=True)

    def process(self) -> int:
        """The id of its process."""
        return os.getpid()

    def _sees(self) -> bool:
        try:
            return (self._setup.tables / MARK).read_text(encoding="utf-8") == self._mark
        except OSError:
            return False

    def _shared(self) -> Path:
        """The folder that all actors of this machine share."""
        return Path(tempfile.gettempdir()) / f"edgefl-tables-{self._mark}"

    def _received(self, pieces: Pieces) -> Setup:
        """Writes what was sent, unless another actor of this machine has done so."""
        import ray

        shared = self._shared()
        if not shared.exists():
            whole = Path(tempfile.mkdtemp(prefix="edgefl-", dir=shared.parent))
            for name, reference in pieces:
                path = whole / name
                path.parent.mkdir(parents=True, exist_ok=True)
                with path.open("ab") as file:
                    file.write(memoryview(ray.get(reference)))
            try:
                whole.rename(shared)
            except OSError:  # another one was faster
                shutil.rmtree(whole, ignore_errors=True)
        return replace(self._setup, model=shared / self._setup.model.name, tables=shared / "tables")


def continued(job: Job) -> str:
    """The id of the task whose memory a job goes on from; empty: there is none."""
    return (job.task if job.tuning is None else job.tuning.task).continues or ""


def pieces_of(setup: Setup) -> list[tuple[str, NDArray[np.uint8]]]:
    """The files of a model and its tables for `Site.load`, mapped, in pieces."""
    files = {setup.model.name: setup.model}
    files |= {f"tables/{path.relative_to(setup.tables)}": path for path in sorted(setup.tables.glob("*/*.npy"))}
    pieces = []
    for name, path in files.items():
        content = np.memmap(path, np.uint8, "r")
        pieces += [(name, np.asarray(content[start : start + _PIECE])) for start in range(0, len(content), _PIECE)]
    return pieces


def _versions() -> str:
    found = []
    for name in ("numpy", "tflite-runtime", "ai-edge-litert"):
        try:
            found.append(f"{name} {metadata.version(name)}")
        except metadata.PackageNotFoundError:
            continue
    return ", ".join((f"edgefl {__version__}", f"Python {platform.python_version()}", *found, platform.machine()))


def _telling(error: Exception) -> EdgeflError:
    """An error that can travel: not those of every library can."""
    if isinstance(error, EdgeflError):
        return error
    return RuntimeFailure(f"A worker failed: {type(error).__name__}: {first_line(error)}")
