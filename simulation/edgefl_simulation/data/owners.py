"""Owners of the rows of a table: numbers while they are read, with a name for each."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgefl_simulation.data.spool import Spool

__all__ = ["Owners"]


class Owners:
    """Owners that come piece by piece, of which there are far fewer than rows."""

    def __init__(self) -> None:
        self._numbers: dict[Any, int] = {}
        self._spool = Spool()

    def add(self, values: Iterable[Any]) -> None:
        """Adds the owners of some rows: text, or numbers of one kind.

        Raises:
            StorageError: the disk is full.
        """
        numbers = self._numbers
        found = [numbers.setdefault(value, len(numbers)) for value in values]
        self._spool.add(np.array(found, np.int32))

    def add_numbered(self, numbers: NDArray[np.integer[Any]], names: Sequence[Any]) -> None:
        """Adds the owners of some rows, ``[rows]``, as numbers of names.

        Raises:
            StorageError: the disk is full.
        """
        known = np.array([self._numbers.setdefault(name, len(self._numbers)) for name in names], np.int32)
        self._spool.add(known[numbers])

    def finished(self) -> tuple[NDArray[np.int32], NDArray[Any]]:
        """The owner of each row, ``[rows]``, as a number, and the names of the numbers, sorted.

        Raises:
            StorageError: the disk is full.
        """
        names = np.array(list(self._numbers))
        order = np.argsort(names, kind="stable")
        places = np.empty(len(names), np.int32)
        places[order] = np.arange(len(names), dtype=np.int32)
        numbers = self._spool.array()
        sorted_numbers = Spool()
        for start in range(0, len(numbers), 1 << 20):
            sorted_numbers.add(places[numbers[start : start + (1 << 20)]])
        return sorted_numbers.array(), names[order]
