"""The memories of a device's runs on its disk: see `edgefl_device_runtime.tasks.run_memory` for which of them counts.

The memory of a task is on the disk before its outcome is sent, so that neither a crash nor a lost reply can separate
the two. A run's memories go when the server says that the run is over, and never before: what the server keeps of the
run (SCAFFOLD's ``c``, FedDyn's ``h``) holds this device's part for as long as the run goes on.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np

from edgefl.atomic import read_bytes, write_bytes
from edgefl.damaged_arrays import DAMAGED
from edgefl.errors import storage_error
from edgefl.hashing import sha256
from edgefl.wire.calls import LONGEST_ASKED
from edgefl.wire.words import check_name, is_name
from edgefl_device_runtime.agent.downloads import free_bytes, no_room
from edgefl_device_runtime.tasks import RunMemory

__all__ = ["Memories"]

_DIGITS = 32
_SUFFIX = ".npz"


class Memories:
    """A folder of memories: a file ``<run>.<hash of the task id>.npz`` for each.

    Of a run there are as many as its tasks say may be asked for again (`Task.continues`, `Task.outstanding`), and one.

    Args:
        folder: made when something is kept.
        spare: bytes that stay free on its disk: how many runs there are, and how large, is for a server to say.
    """

    def __init__(self, folder: Path, spare: int = 0) -> None:
        self.folder = folder
        self._spare = spare
        self._turn = 0

    def runs(self) -> list[str]:
        """The ids of the runs that are remembered, sorted."""
        return sorted({run for run, _ in self._files()})

    def to_ask_about(self, most: int) -> list[str]:
        """Runs of which the server is to say whether they are over: all, or as many as may be asked about, in turns."""
        runs = [run for run in self.runs() if len(run) <= LONGEST_ASKED]
        if len(runs) <= most:
            return runs
        self._turn = (self._turn + most) % len(runs)
        return (runs + runs)[self._turn : self._turn + most]

    def recall(self, run: str, task_id: str, outstanding: Collection[str] = ()) -> RunMemory | None:
        """Reads what was kept at the end of a task, and forgets the run's other tasks but those that are outstanding.

        Args:
            run: the run's id.
            task_id: empty: nothing was accepted yet.
            outstanding: ids of the run's tasks that may be asked for later.

        Returns:
            The memory, an empty one without a task; None when it is not there, or damaged.

        Raises:
            StorageError: it is there and cannot be read.
            MessageError: the run's id is none.
        """
        wanted = self._path(run, task_id)
        kept = {self._path(run, each) for each in (task_id, *outstanding) if each}
        for path in [path for of, path in self._files() if of == run]:
            if path not in kept:
                with contextlib.suppress(OSError):  # it is never used; the next task of the run tries again
                    path.unlink()
        if not task_id:
            return RunMemory()
        try:
            data = read_bytes(wanted)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise storage_error(error, "read", wanted) from error
        return _unpack(data)

    def check_room(self, size: int) -> None:
        """Whether so many bytes can be kept.

        Raises:
            StorageError: they cannot.
        """
        room = free_bytes(self.folder if self.folder.exists() else self.folder.parent) - self._spare
        if size > room:
            raise no_room(self.folder, size, max(room, 0))

    def keep(self, run: str, task_id: str, memory: RunMemory) -> None:
        """Stores what the run is like after a task; it is on the disk when this returns.

        Raises:
            StorageError: it cannot be written, or there is no room for it; nothing was changed.
            MessageError: the run's id is none.
        """
        path = self._path(run, task_id)
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise storage_error(error, "make the folder", self.folder) from error
        data = _pack(memory)
        self.check_room(len(data))
        write_bytes(path, data, durable=True, mode=0o600)

    def forget(self, run: str) -> None:
        """Deletes what is kept of a run that is over."""
        for path in [path for of, path in self._files() if of == run]:
            with contextlib.suppress(OSError):  # it costs some disk, and the next poll asks again
                path.unlink()

    def _path(self, run: str, task_id: str) -> Path:
        # A run's id must be told to the server, so it is the name itself; of a task's, the hash is enough.
        return self.folder / f"{check_name(run, 'a run')}.{_name(task_id)}{_SUFFIX}"

    def _files(self) -> list[tuple[str, Path]]:
        """The files with their runs."""
        found = []
        for path in self.folder.glob(f"*{_SUFFIX}"):
            run, dot, task = path.name.removesuffix(_SUFFIX).rpartition(".")
            if dot and len(task) == _DIGITS and is_name(run):
                found.append((run, path))
        return found


def _name(word: str) -> str:
    return sha256(word.encode())[:_DIGITS]


def _pack(memory: RunMemory) -> bytes:
    arrays: dict[str, Any] = {**memory.to_arrays()}
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


def _unpack(data: bytes) -> RunMemory | None:
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as archive:
            return RunMemory.from_arrays({name: archive[name] for name in archive.files})
    except (*DAMAGED, OSError, KeyError, ValueError):
        return None  # a memory card that loses writes
