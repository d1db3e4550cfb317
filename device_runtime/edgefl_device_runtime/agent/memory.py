"""What a device remembers of each run: parameters that never leave it, and its control variate.

Which memory counts is the server's to say, since only it knows which outcomes were folded: a task names the device's
latest folded task of the run (`Task.continues`), and goes on from what the device kept at the end of that one. What was
kept of tasks that were refused, came too late or were discarded is then never used. The memory of a task is on the disk
before its outcome is sent, so that neither a crash nor a lost reply can separate the two.
"""

from __future__ import annotations

import contextlib
import io
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgefl.atomic import write_bytes
from edgefl.errors import storage_error
from edgefl.hashing import sha256

__all__ = ["Memories", "Memory"]

_LOCAL, _CONTROL = "local/", "control"
_DIGITS = 32


@dataclass(frozen=True)
class Memory:
    """A run as a device remembers it; empty before its first task.

    Attributes:
        local: parameters that are not shared, by name; those that are missing have the model file's initial values.
        control: SCAFFOLD's ``c_i`` or FedDyn's ``h_i``, float32 ``[weight_size]``; None: zeros.
    """

    local: Mapping[str, NDArray[np.float32]] = field(default_factory=dict)
    control: NDArray[np.float32] | None = None

    @property
    def vectors(self) -> tuple[NDArray[np.float32], ...]:
        """All that is remembered; nothing for a model and an algorithm that need no memory."""
        return (*self.local.values(), *(() if self.control is None else (self.control,)))


class Memories:
    """A folder of memories: one file for a run and task, at most two files a run.

    Args:
        folder: made when something is kept.
        runs_kept: how many runs are remembered; those not worked on for longest are forgotten first.
    """

    def __init__(self, folder: Path, runs_kept: int) -> None:
        self.folder = folder
        self.runs_kept = runs_kept

    def recall(self, run: str, task_id: str) -> Memory:
        """What was kept at the end of a task, and forgets every other task of the run.

        Args:
            run: the run's id.
            task_id: empty: nothing was folded yet.

        Returns:
            The memory; an empty one when there is none, or it is damaged.

        Raises:
            StorageError: it is there and cannot be read.
        """
        wanted = self._path(run, task_id)
        for path in self._files(_name(run)):
            if path != wanted or not task_id:
                with contextlib.suppress(OSError):  # it is never used; the next task of the run tries again
                    path.unlink()
        if not task_id:
            return Memory()
        try:
            data = wanted.read_bytes()
        except FileNotFoundError:
            return Memory()
        except OSError as error:
            raise storage_error(error, "read", wanted) from error
        return _unpack(data)

    def keep(self, run: str, task_id: str, memory: Memory) -> None:
        """Stores what the run is like after a task; it is on the disk when this returns.

        Raises:
            StorageError: it cannot be written; nothing was changed.
        """
        path = self._path(run, task_id)
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise storage_error(error, "make the folder", self.folder) from error
        write_bytes(path, _pack(memory), durable=True, mode=0o600)
        self._forget_oldest(_name(run))

    def forget_all(self) -> None:
        """Deletes every memory, and what a kill left of a half-written one: no run is active any more."""
        with contextlib.suppress(OSError):
            for path in list(self.folder.iterdir()):
                path.unlink()

    def _forget_oldest(self, current: str) -> None:
        used: dict[str, float] = {}
        with contextlib.suppress(OSError):
            for path in self._files():
                run = path.name.partition(".")[0]
                used[run] = max(used.get(run, 0.0), path.stat().st_mtime)
            others = sorted((run for run in used if run != current), key=lambda run: (used[run], run), reverse=True)
            for run in others[max(self.runs_kept - 1, 0) :]:
                for path in self._files(run):
                    path.unlink()

    def _path(self, run: str, task_id: str) -> Path:
        return self.folder / f"{_name(run)}.{_name(task_id)}.npz"

    def _files(self, run: str = "") -> list[Path]:
        return list(self.folder.glob(f"{run or '[0-9a-f]*'}.*.npz"))


def _name(word: str) -> str:
    # A name from a server must never become a path elsewhere.
    return sha256(word.encode())[:_DIGITS]


def _pack(memory: Memory) -> bytes:
    arrays = {f"{_LOCAL}{name}": array for name, array in memory.local.items()}
    if memory.control is not None:
        arrays[_CONTROL] = memory.control
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


def _unpack(data: bytes) -> Memory:
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
    except (zipfile.BadZipFile, ValueError, OSError, EOFError, KeyError):
        return Memory()  # a memory card that loses writes costs what was learned, not the device
    local = {name[len(_LOCAL) :]: array for name, array in arrays.items() if name.startswith(_LOCAL)}
    return Memory(local, arrays.get(_CONTROL))
