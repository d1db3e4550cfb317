"""A data set, as a simulation needs it: arrays, and where it is known whose each row is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["OWNER", "Arrays", "DataSet", "first_value"]

Arrays = Mapping[str, NDArray[Any]]
OWNER = "id"
"""The name of the array, or column, that says whose each row is; only this one may be missing."""


@dataclass(frozen=True, eq=False, repr=False)
class DataSet:
    """Rows by name, before they are given to devices.

    Attributes:
        arrays: ``[examples, …]`` each, as a device's local data: ``x`` and ``y``, or as the model calls them. They may
            be mapped files, and larger than memory.
        owners: whose each row is, ``[examples]``; None: nobody knows.
        held_out: further rows that no device holds, for tests; without any, some are taken from the others.
        reshapes: rows may be given another shape of as many numbers, to fit the model: pixels are pixels.
        owner_names: what the numbers in `owners` stand for, sorted; None: they are themselves.
    """

    arrays: Arrays
    owners: NDArray[Any] | None = None
    held_out: Arrays = field(default_factory=dict)
    reshapes: bool = False
    owner_names: NDArray[Any] | None = None

    def __repr__(self) -> str:
        arrays = ", ".join(f"{name} {array.dtype}{list(array.shape)}" for name, array in self.arrays.items())
        tests = len(next(iter(self.held_out.values()))) if self.held_out else 0
        return f"<DataSet: {self.rows:,} rows: {arrays}; {tests:,} held out{'' if self.owners is None else '; owners'}>"

    @property
    def rows(self) -> int:
        """Number of examples that devices can hold."""
        return len(next(iter(self.arrays.values())))

    def with_arrays(self, arrays: Arrays, held_out: Arrays) -> DataSet:
        """The same rows under other names, or in other shapes."""
        return replace(self, arrays=arrays, held_out=held_out)

    def fitted(self, name: str, shape: tuple[int, ...]) -> DataSet:
        """The same with the rows of an array in another shape, where they may be and have as many numbers."""
        if not self.reshapes or name not in self.arrays:
            return self
        wanted = int(np.prod(shape, dtype=np.int64))

        def fit(arrays: Arrays) -> dict[str, NDArray[Any]]:
            found = dict(arrays)
            if name in found and found[name][:1].size == wanted:
                found[name] = found[name].reshape(-1, *shape)
            return found

        return self.with_arrays(fit(self.arrays), fit(self.held_out))


def first_value(array: NDArray[Any]) -> str:
    """The first value of an array that has one, as messages show it: numpy 2 would say ``np.str_('3')`` of ``'3'``."""
    return f"{array.ravel()[:1].tolist()[0]!r:.60}"
