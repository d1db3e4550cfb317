"""Keeps what emulated devices remember of the run, in files: each task says which of them counts, as for real ones.

A file for each task at whose end there was something to remember. Tasks that were computed and never folded leave
files that nobody asks for; a task that is computed again writes the same one.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any

import numpy as np

from edgefl.atomic import write_bytes
from edgefl.damaged_arrays import DAMAGED
from edgefl.errors import StorageError, storage_error
from edgefl.wire.messages import Task
from edgefl_device_runtime.tasks import Remembered, RunMemory

__all__ = ["Memories"]

_ANEW = "Delete checkpoint.npz beside it to begin the run anew."


class Memories:
    """A folder of memories.

    Args:
        folder: made when something is kept.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def recall(self, task: Task) -> Remembered:
        """Reads what the task goes on from; nothing where it goes on from none.

        Raises:
            StorageError: it cannot be read. Without it the run would end with other bits, and nobody would know.
        """
        if not task.continues:
            return {}
        path = self._path(task.continues)
        try:
            with np.load(path, allow_pickle=False) as archive:
                return {task.continues: RunMemory.from_arrays({name: archive[name] for name in archive.files})}
        except (*DAMAGED, OSError, KeyError, AttributeError) as error:
            raise StorageError(f"Cannot read what a device remembers, {path}: {error}.", hint=_ANEW) from error

    def check(self, tasks: Iterable[str]) -> None:
        """Makes sure that what was kept is still there, before a run goes on from it.

        Args:
            tasks: the ids of tasks at whose end something was kept.

        Raises:
            StorageError: something is missing.
        """
        there = {path.name for path in self._folder.iterdir()} if self._folder.is_dir() else set()
        lost = sum(self._path(each).name not in there for each in tasks)
        if lost:
            raise StorageError(
                f"{self._folder} lacks what {lost} devices remember of the run, which goes on from it.", hint=_ANEW
            )

    def keep(self, task: Task, memory: RunMemory) -> None:
        """Writes what a device remembers at the end of a task.

        Raises:
            StorageError: it cannot be written.
        """
        arrays: dict[str, Any] = {**memory.to_arrays()}
        buffer = io.BytesIO()  # numpy would leave half a file on a disk that is full
        np.savez(buffer, **arrays)
        # No view of it: one that the error of a full disk holds ends the process in Python 3.12, once it is collected.
        self.put(task.task_id, buffer.getvalue())

    def packed(self, task_id: str) -> bytes | None:
        """A memory as bytes, to be put into another folder; None where nothing was kept.

        Args:
            task_id: the id of the task at whose end it was kept; empty: of none.

        Raises:
            StorageError: it is there and cannot be read.
        """
        path = self._path(task_id)
        try:
            return path.read_bytes() if task_id else None
        except FileNotFoundError:
            return None
        except OSError as error:
            raise storage_error(error, "read", path) from error

    def put(self, task_id: str, packed: bytes) -> None:
        """Writes a memory as bytes, as one that comes from another folder.

        Args:
            task_id: the id of the task at whose end it was kept.
            packed: see `packed`.

        Raises:
            StorageError: it cannot be written.
        """
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise storage_error(error, "make the folder", self._folder) from error
        write_bytes(self._path(task_id), packed)

    def keep_only(self, tasks: Collection[str]) -> None:
        """Deletes what was kept of all other tasks."""
        kept = {self._path(each).name for each in tasks}
        with contextlib.suppress(OSError):  # what stays costs some disk
            for path in self._folder.iterdir():
                if path.name not in kept:
                    path.unlink()

    def _path(self, task_id: str) -> Path:
        return self._folder / f"{task_id}.npz"
