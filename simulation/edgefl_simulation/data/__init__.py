"""Data sets: by name, from files, or arrays; one comes here to add another."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from edgefl.errors import DataError
from edgefl_simulation.data import digits, fashion_mnist, smartwatch
from edgefl_simulation.data.base import DataSet
from edgefl_simulation.data.files import from_arrays, from_file

__all__ = ["NAMED", "OWNER", "DataSet", "load_data"]

NAMED: dict[str, Callable[[], DataSet]] = {
    "digits": digits.load,
    "fashion-mnist": fashion_mnist.load,
    "smartwatch": smartwatch.load,
}
"""Data sets by name, each with whatever brings it."""

OWNER = "id"
"""The name of the array, or column, that says whose each row is."""


def load_data(data: Any, owner: str = OWNER) -> DataSet:
    """Finds out what is meant, and reads it.

    Args:
        data: a name of `NAMED`; a path; ``(x, y)``, ``(x, y, sample_weight)`` or arrays by name; a `DataSet`.
        owner: the array, or column, that says whose each row is, where there is one of this name.

    Raises:
        DataError: it is none of these, or cannot be read.
    """
    if isinstance(data, DataSet):
        return data
    if isinstance(data, str) and data in NAMED:
        return NAMED[data]()
    if isinstance(data, (str, os.PathLike)):
        path = Path(data)
        if not path.exists() and not path.suffix and os.sep not in str(data):
            raise DataError(f"There is no data set and no file {str(data)!r}.", hint=f"Data sets: {', '.join(NAMED)}.")
        return from_file(path, owner)
    if isinstance(data, Mapping):
        return from_arrays({str(name): np.asarray(array) for name, array in data.items()}, owner, "the data")
    if isinstance(data, (tuple, list)) and len(data) in (2, 3):
        named = dict(zip(("x", "y", "sample_weight"), map(np.asarray, data), strict=False))
        return from_arrays(named, owner, "the data")
    raise DataError(
        f"Expected the name of a data set, a path, (x, y) or arrays by name as data, got {type(data).__name__}.",
        hint=f"Data sets: {', '.join(NAMED)}.",
    )
