"""Keeps what emulated devices remember of the run, in files: each task says which of them counts, as for real ones.

A file for each task at whose end there was something to remember. Tasks that were computed and never folded leave
files that nobody asks for; a task that is computed again writes the same one.
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np

from edgefl.errors import StorageError, storage_error
from edgefl.wire.messages import Task
from edgefl_device_runtime.tasks import Remembered, RunMemory

__all__ = ["Memories"]

_LOCAL, _CONTROL = "local/", "control"


class Memories:
    """A folder of memories.

    Args:
        folder: made when something is kept.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def recall(self, task: Task) -> Remembered:
        """Reads what the task goes on from; nothing where nothing was kept.

        Raises:
            StorageError: it is there and cannot be read.
        """
        if not task.continues:
            return {}
        path = self._path(task.continues)
        try:
            with np.load(path, allow_pickle=False) as archive:
                arrays = {name: archive[name] for name in archive.files}
        except FileNotFoundError:
            return {}
        except (OSError, ValueError) as error:
            raise StorageError(f"Cannot read what a device remembers, {path}: {error}.") from error
        local = {name[len(_LOCAL) :]: array for name, array in arrays.items() if name.startswith(_LOCAL)}
        return {task.continues: RunMemory(local, arrays.get(_CONTROL))}

    def keep(self, task: Task, memory: RunMemory) -> None:
        """Writes what a device remembers at the end of a task.

        Raises:
            StorageError: it cannot be written.
        """
        arrays: dict[str, Any] = {f"{_LOCAL}{name}": array for name, array in memory.local.items()}
        if memory.control is not None:
            arrays[_CONTROL] = memory.control
        path = self._path(task.task_id)
        temporary = path.with_suffix(".part")
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            with temporary.open("wb") as file:
                np.savez(file, **arrays)
            temporary.replace(path)
        except OSError as error:
            raise storage_error(error, "write", path) from error

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
        """Writes a memory that comes from another folder.

        Args:
            task_id: the id of the task at whose end it was kept.
            packed: see `packed`.

        Raises:
            StorageError: it cannot be written.
        """
        path = self._path(task_id)
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            temporary = path.with_suffix(".part")
            temporary.write_bytes(packed)
            temporary.replace(path)
        except OSError as error:
            raise storage_error(error, "write", path) from error

    def keep_only(self, tasks: Collection[str]) -> None:
        """Deletes what was kept of all other tasks."""
        kept = {self._path(each).name for each in tasks}
        with contextlib.suppress(OSError):  # what stays costs some disk
            for path in self._folder.iterdir():
                if path.name not in kept:
                    path.unlink()

    def _path(self, task_id: str) -> Path:
        return self._folder / f"{task_id}.npz"
