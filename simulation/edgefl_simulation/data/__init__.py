"""Data sets: by name, from files, or arrays; one comes here to add another."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from edgefl.errors import DataError
from edgefl_simulation.data import digits, fashion_mnist, smartwatch, vowel
from edgefl_simulation.data.arrays import from_arrays
from edgefl_simulation.data.base import OWNER, DataSet
from edgefl_simulation.data.columns import WEIGHT, chosen, conventional, fitted_to, require_owner
from edgefl_simulation.data.dataset_objects import from_object
from edgefl_simulation.data.files import KINDS, from_file

__all__ = ["KINDS", "NAMED", "OWNER", "DataSet", "conventional", "fitted_to", "load_data"]

NAMED: dict[str, Callable[[], DataSet]] = {
    "digits": digits.load,
    "fashion-mnist": fashion_mnist.load,
    "smartwatch": smartwatch.load,
    "vowel": vowel.load,
}
"""Data sets by name, each with whatever brings it."""


def load_data(data: Any, owner: str = OWNER, *, features: Sequence[str] = (), target: str = "") -> DataSet:
    """Finds out what is meant, and reads it.

    Args:
        data: a name of `NAMED`; a path; ``(x, y)``, ``(x, y, sample_weight)`` or arrays by name; a `tf.data.Dataset`,
            a Hugging Face data set or a DataFrame; a `DataSet`.
        owner: the array, or column, that says whose each row is; one that is not `OWNER` has to be there.
        features: the arrays, or columns, that are the model's input, in this order; none: all but the target.
        target: the array, or column, that is the model's target; empty: the one called ``y`` or ``label``, else a
            table's last column.

    Raises:
        DataError: it is none of these, or cannot be read.
        MissingDependencyError: it is Parquet, and pyarrow is not installed.
        StorageError: there is no room for what does not fit into memory.
    """
    features = (features,) if isinstance(features, str) else tuple(features)
    if target == owner or owner in features:
        raise DataError(
            f"{owner!r} says whose each row is, and cannot be a feature or the target as well.",
            hint="Name another owner.",
        )
    # A table is read without what nobody wants; with a target alone it is all wanted.
    found, origin = _load(data, owner, (*features, target, WEIGHT) if features and target else ())
    if found.owners is None:
        require_owner(owner, found.arrays, origin)
    return chosen(found, features, target, origin, "" if found.owners is None else owner)


def _load(data: Any, owner: str, wanted: Sequence[str]) -> tuple[DataSet, str]:
    """The data, and what the user calls it."""
    if isinstance(data, DataSet):
        return data, "the data set"
    if isinstance(data, str) and data in NAMED:
        return NAMED[data](), data
    if isinstance(data, (str, os.PathLike)):
        path = Path(data)
        if not path.suffix and os.sep not in str(data) and not os.path.exists(path):  # noqa: PTH110 - raises nothing
            raise DataError(
                f"There is no data set and no file {str(data)!r:.80}.", hint=f"Data sets: {', '.join(NAMED)}."
            )
        return from_file(path, owner, wanted), str(path)
    known = from_object(data, owner, wanted)
    if known is not None:
        return known, "the data"
    if isinstance(data, Mapping):
        return from_arrays(data, owner, "the data"), "the data"
    if isinstance(data, (tuple, list)) and len(data) in (2, 3):
        named: dict[str, Any] = {}
        for name, value in zip(("x", "y", WEIGHT), data, strict=False):
            if isinstance(value, Mapping):
                named |= value
            elif value is not None:
                named[name] = value
        return from_arrays(named, owner, "the data"), "the data"
    raise DataError(
        f"Expected the name of a data set, a path, (x, y), arrays by name or a data set of another library as data, "
        f"got {type(data).__name__}.",
        hint=f"Data sets: {', '.join(NAMED)}.",
    )
