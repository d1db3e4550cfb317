"""The data of clients: batches in their order, as a ``tf.data`` dataset has them, or arrays that are shuffled."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgefl.errors import DataError
from edgefl.manifest import ModelManifest

__all__ = ["Batch", "ClientData", "as_batch", "client_data", "joined"]

_FIELDS = ("x", "y", "sample_weight")
_FORMS = "Give a tf.data.Dataset of batches, a list of batches, or (x, y)."
_INFINITE = -1
"""The cardinality of a dataset that repeats for ever."""
Values = Any
"""An array ``[rows, …]``, a list of them, or arrays by name."""


@dataclass(frozen=True, eq=False)
class Batch:
    """Rows that belong together.

    Attributes:
        x: the inputs: an array, a list of arrays or arrays by name.
        y: the targets, likewise.
        sample_weight: one number for each row, or None.
        rows: how many there are.
    """

    x: Values
    y: Values
    sample_weight: NDArray[Any] | None
    rows: int


@dataclass(frozen=True, eq=False)
class ClientData:
    """One client's data.

    Attributes:
        arrays: all rows, under names that `arrange` finds.
        batches: how many of the rows each batch has, in order; empty: they are arrays, to be shuffled.
        rows: how many there are.
    """

    arrays: Mapping[str, NDArray[Any]]
    batches: tuple[int, ...]
    rows: int


def client_data(given: Any, manifest: ModelManifest, title: str) -> ClientData | None:
    """Reads a client's data.

    Args:
        given: a dataset with the method ``as_numpy_iterator``, or a list of batches: both are taken in their order; or
            ``(x, y)``, ``(x, y, sample_weight)`` or arrays by these names.
        manifest: of the model.
        title: whose it is, for errors.

    Returns:
        The data; None where there are no rows.

    Raises:
        DataError: it is something else, has no end, is not batched, or its batches are unlike each other.
    """
    if isinstance(given, Iterator):
        raise DataError(f"{title} is an iterator, which can be read once only.", hint=_FORMS)
    if callable(getattr(given, "as_numpy_iterator", None)):
        if _is_endless(given):
            raise DataError(f"{title} has no end: it repeats for ever.", hint="Say how often: dataset.repeat(count).")
        batches = [as_batch(each, title) for each in given.as_numpy_iterator()]
    elif isinstance(given, list):
        batches = [as_batch(each, title) for each in given]
    elif isinstance(given, (tuple, Mapping)):
        whole = as_batch(given, title)
        return ClientData(joined([whole], manifest), (), whole.rows) if whole.rows else None
    else:
        raise DataError(f"{title} is a {type(given).__name__}.", hint=_FORMS)
    batches = [each for each in batches if each.rows]
    if not batches:
        return None
    try:
        arrays = joined(batches, manifest)
    except ValueError as error:
        raise DataError(f"{title} has batches that are unlike each other: {error}.") from error
    sizes = tuple(each.rows for each in batches)
    return ClientData(arrays, sizes, sum(sizes))


def as_batch(given: Any, title: str) -> Batch:
    """Finds inputs and targets in one batch.

    Args:
        given: ``(x, y)``, ``(x, y, sample_weight)``, or a mapping or named tuple with these names.
        title: whose it is, for errors.

    Raises:
        DataError: it is something else, or its arrays have no rows, or unlike numbers of them.
    """
    if isinstance(given, tuple) and hasattr(given, "_fields"):
        given = dict(zip(given._fields, given, strict=True))
    if isinstance(given, Mapping):
        known = {name: given[name] for name in _FIELDS if name in given}
        if len(known) != len(given) or "x" not in known or "y" not in known:
            raise DataError(
                f"{title} expects batches with x and y, got {', '.join(map(repr, given)) or 'nothing'}.",
                hint="Map them: dataset.map(lambda row: {'x': row[…], 'y': row[…]}).",
            )
        x, y, weight = known["x"], known["y"], known.get("sample_weight")
    elif isinstance(given, tuple) and len(given) in (2, 3):
        x, y, weight = (*given, None)[:3]
    else:
        what = f"a tuple of {len(given)}" if isinstance(given, tuple) else f"a {type(given).__name__}"
        raise DataError(f"{title} expects batches (x, y), got {what}.", hint=_FORMS)
    x, y = _arrays(x), _arrays(y)
    weight = None if weight is None else np.asarray(weight)
    leaves = [*_leaves(x), *_leaves(y), *([] if weight is None else [weight])]
    if any(leaf.ndim == 0 for leaf in leaves):
        raise DataError(f"{title} is not batched: an element is one row.", hint="Batch it: dataset.batch(20).")
    rows = {len(leaf) for leaf in leaves}
    if len(rows) != 1:
        raise DataError(f"{title} has arrays of {', '.join(map(str, sorted(rows)))} rows in one batch.")
    return Batch(x, y, weight, rows.pop())


def joined(batches: Sequence[Batch], manifest: ModelManifest) -> dict[str, NDArray[Any]]:
    """All rows of some batches, under names that `arrange` finds.

    Raises:
        DataError: they have other numbers of arrays than the model has inputs and targets.
        ValueError: they are unlike each other.
    """
    rows = [_named(each, manifest) for each in batches]
    if any(each.keys() != rows[0].keys() for each in rows):
        raise ValueError("other arrays")
    if len(rows) == 1:
        return rows[0]
    return {name: np.concatenate([each[name] for each in rows]) for name in rows[0]}


def _named(batch: Batch, manifest: ModelManifest) -> dict[str, NDArray[Any]]:
    found = _by_name("x", "inputs", batch.x, manifest.inputs)
    found.update(_by_name("y", "targets", batch.y, [target.name for target in manifest.targets]))
    return found if batch.sample_weight is None else {**found, "sample_weight": batch.sample_weight}


def _by_name(name: str, what: str, values: Values, names: Sequence[str]) -> dict[str, NDArray[Any]]:
    if isinstance(values, np.ndarray):
        return {name: values}
    if isinstance(values, Mapping):
        return dict(values)
    if len(values) != len(names):
        raise DataError(f"The model has {len(names)} {what} ({', '.join(names)}), got {len(values)}.")
    return dict(zip(names, values, strict=True))


def _arrays(values: Any) -> Values:
    """Arrays of whatever they are: tensors, lists of numbers."""
    if isinstance(values, Mapping):
        return {name: np.asarray(each) for name, each in values.items()}
    if isinstance(values, tuple):
        return [np.asarray(each) for each in values]
    return np.asarray(values)


def _leaves(values: Values) -> list[NDArray[Any]]:
    if isinstance(values, np.ndarray):
        return [values]
    return list(values.values() if isinstance(values, Mapping) else values)


def _is_endless(dataset: Any) -> bool:
    cardinality = getattr(dataset, "cardinality", None)
    return callable(cardinality) and int(cardinality()) == _INFINITE
