"""Keeps the updates of a round in a file until they are folded: no more than one of them is in memory."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgefl.errors import storage_error
from edgefl_server.aggregation import Contribution, Update

__all__ = ["KeptUpdates"]

_Places = Mapping[str, tuple[int, int]]
"""Each section's first byte in the file, and its number of elements."""


class KeptUpdates:
    """A file without a name, which is gone with this object or the process.

    Attributes:
        contributions: what is kept, in the order in which it was added.
    """

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile()  # noqa: SIM115 - it lives as long as this object
        self.contributions: list[Contribution] = []

    def __len__(self) -> int:
        return len(self.contributions)

    def __enter__(self) -> KeptUpdates:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def add(self, update: Update) -> None:
        """Writes an update's vectors.

        Raises:
            StorageError: there is no space for them.
        """
        places = {}
        try:
            for name in update.sections:
                vector = update.section(name)
                places[name] = self._file.tell(), vector.size
                self._file.write(np.ascontiguousarray(vector, np.float32).data)
            self._file.flush()
        except OSError as error:
            raise storage_error(error, "write", Path(tempfile.gettempdir())) from error
        light = replace(update, sections={})
        self.contributions.append(Contribution(update.task_id, update.num_examples, lambda: self._read(light, places)))

    def _read(self, light: Update, places: _Places) -> Update:
        sections: dict[str, NDArray[np.float32]] = {}
        for name, (start, size) in places.items():
            self._file.seek(start)
            sections[name] = np.fromfile(self._file, np.float32, size)
        return replace(light, sections=sections)
