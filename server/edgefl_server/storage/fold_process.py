"""A large fold in a process of its own: while it reads and adds up, the server's threads have the interpreter.

The process is given all that it needs and opens no database. It writes vectors by their hash and says what came of it;
the server decides and writes that down, as for a fold of its own. Whichever of both is killed, the fold is done again.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import signal
import subprocess
import sys
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgefl.errors import EdgeflError, RunError, StorageError
from edgefl_server.aggregation import Standing
from edgefl_server.storage.blobs import BlobStore, FolderBlobs
from edgefl_server.storage.made_folds import LostStartError, Made, make
from edgefl_server.storage.merging import Work
from edgefl_server.storage.placements import Known, Placements
from edgefl_server.storage.state import Files

__all__ = ["fold", "make_beside"]

_COMMAND = (sys.executable, "-c", "from edgefl_server.storage.fold_process import fold; fold()")


@dataclass
class _Folder:
    """The files of a server's state folder, as another process sees them."""

    folder: Path
    weights: BlobStore
    outcomes: BlobStore
    placements: Placements


@dataclass(frozen=True)
class _Given:
    """All that the process is told."""

    folder: Path
    work: Work
    closed: Standing
    known: dict[str, Known]


@dataclass(frozen=True)
class _Failed:
    """The reason for which it did not work, for whoever asked."""

    kind: str
    message: str
    hint: str | None = None
    full: bool = False


def make_beside(files: Files, work: Work, closed: Standing) -> Made:
    """Does what `make` does in a process of its own, and waits for it.

    Raises:
        LostStartError, StorageError: see there.
        RunError: it was killed, or failed with another error.
    """
    digests = [each.digest for each in work.accepted]
    folder = files.folder.absolute()
    given = _Given(folder, work.plain(), closed, files.placements.known(digests))
    try:
        # In a folder in which nobody else can put modules: Python looks there first.
        process = subprocess.Popen(
            _COMMAND, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=_environment(), cwd=folder
        )
    except OSError as error:  # no memory for it, or no more processes: as much is needed the next time
        raise RunError(f"The process that folds could not be started: {error.strerror}.") from error
    with process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            # A process that has ended says why by its code. The pipe stays open: it ends when this one does.
            with contextlib.suppress(BrokenPipeError):
                pickle.dump(given, process.stdin)
                process.stdin.flush()
            said = process.stdout.read()
            code = process.wait()
        except BaseException:
            process.kill()
            raise
        finally:
            with contextlib.suppress(BrokenPipeError):
                process.stdin.close()
    if code or not said:
        raise RunError(f"The process that folds ended {f'by signal {-code}' if code < 0 else f'with code {code}'}.")
    result: Made | _Failed = pickle.loads(said)  # noqa: S301 - of our own process
    if isinstance(result, _Failed):
        raise _error(result)
    return result


def _environment() -> dict[str, str]:
    """In which the process finds the very modules that this one has."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join(str(Path(each).absolute()) for each in sys.path)}


def _error(failed: _Failed) -> EdgeflError:
    if failed.kind == LostStartError.__name__:
        return LostStartError(failed.message, hint=failed.hint)
    if failed.kind == StorageError.__name__:
        return StorageError(failed.message, hint=failed.hint, full=failed.full)
    return RunError(failed.message, hint=failed.hint)


def _failed(error: Exception) -> _Failed:
    if isinstance(error, StorageError):
        return _Failed(StorageError.__name__, error.message, error.hint, error.full)
    if isinstance(error, EdgeflError):
        return _Failed(type(error).__name__, error.message, error.hint)
    return _Failed("", f"{type(error).__name__}: {error}".rstrip(": "))


def _end_with_the_server() -> None:
    """A fold that nobody waits for is not gone on with: the next server makes it."""
    os.read(0, 1)
    os._exit(1)


def fold() -> None:
    """Is all that the process does: reads what it is given from standard input, and writes what came of it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # it ends with the server, which waits for it
    out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a strategy prints is no answer
    given: _Given = pickle.load(sys.stdin.buffer)  # noqa: S301 - of our own server
    threading.Thread(target=_end_with_the_server, daemon=True).start()
    outcomes = FolderBlobs(given.folder / "outcomes", owner=False)
    placements = Placements(outcomes)
    placements.learn(given.known)
    files = _Folder(given.folder, FolderBlobs(given.folder / "weights", owner=False), outcomes, placements)
    result: Any
    try:
        result = make(files, given.work, given.closed)
    except Exception as error:
        result = _failed(error)
    with out:
        pickle.dump(result, out)
        out.flush()
        os._exit(0)  # nothing is left to do but to take apart what was imported
