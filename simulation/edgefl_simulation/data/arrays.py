"""Arrays by name that somebody gives: which are held out, whose each row is, and what cannot be rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgefl.errors import DataError
from edgefl_simulation.data.base import DataSet, first_value
from edgefl_simulation.data.columns import require_owner

__all__ = ["TEST", "as_array", "from_arrays"]

TEST = "test_"
"""The beginning of the names of arrays that no device holds."""
_NUMBERS = "Turn text and categories into numbers first: classes are 0, 1, 2, …"


def from_arrays(arrays: Mapping[str, Any], owner: str, origin: str, owner_names: NDArray[Any] | None = None) -> DataSet:
    """Takes arrays by name, those called ``test_…`` as rows that are held out.

    Args:
        arrays: of equal length, but for those that are held out.
        owner: the name of the one that says whose each row is; empty: none does.
        origin: what the user calls them.
        owner_names: what the numbers in it stand for; None: they are themselves.

    Raises:
        DataError: they differ in their number of rows, hold something that is no number, there are none, or not the one
            of owners.
    """
    require_owner(owner, map(str, arrays), origin)
    given = {str(name): as_array(str(name), array, origin, owner) for name, array in arrays.items()}
    held_out = {name[len(TEST) :]: array for name, array in given.items() if name.startswith(TEST)}
    own = {name: array for name, array in given.items() if not name.startswith(TEST)}
    held_out.pop(owner, None)
    owners = own.pop(owner, None)
    for group in (own if owners is None else {**own, owner: owners}, held_out):
        lengths = {name: len(array) for name, array in group.items()}
        if len(set(lengths.values())) > 1:
            raise DataError(f"Expected arrays with equal numbers of rows in {origin}, got {lengths}.")
    if not own or not len(next(iter(own.values()))):
        raise DataError(f"Expected arrays x and y with rows in {origin}, got none.")
    if held_out and not len(next(iter(held_out.values()))):
        raise DataError(f"Expected rows in the arrays {TEST}… of {origin}, got none.", hint="Leave them out.")
    return DataSet(own, owners, held_out, owner_names=owner_names)


def as_array(name: str, value: Any, origin: str, owner: str, row: int = 0) -> NDArray[Any]:
    """One array of rows.

    Args:
        name: of the array.
        value: what was given for it.
        origin: what the user calls all of it.
        owner: the name of the array whose rows may be text.
        row: the number of the first row.

    Raises:
        DataError: it is none: a single number, rows of different shapes, text, Python objects.
    """
    try:
        array = np.asarray(value)
    except ValueError:
        array = np.empty(0, object)
    if array.dtype.kind == "O":
        if name == owner:
            return _texts(value)
        array = _rows(name, value, origin, row)
    if array.ndim == 0:
        raise DataError(f"Expected a row for each example as {name!r} in {origin}, got a single value.")
    if name == owner:
        if array.ndim != 1:
            raise DataError(f"Expected one id for each row as {name!r} in {origin}, got shape {array.shape}.")
        return array
    if array.dtype.kind not in "biuf":
        kind = "text" if array.dtype.kind in "US" else str(array.dtype)
        shown = f": {first_value(array)} in row {row}" if array.size else ""
        raise DataError(f"The array {name!r} of {origin} expects numbers, got {kind}{shown}.", hint=_NUMBERS)
    return array


def _rows(name: str, value: Any, origin: str, first_row: int) -> NDArray[Any]:
    """The numbers in Python objects, row by row, which says the first row that is to blame."""
    found: list[NDArray[Any]] = []
    if not isinstance(value, (Sequence, np.ndarray)) or (isinstance(value, np.ndarray) and not value.ndim):
        raise DataError(f"Expected an array of numbers as {name!r} in {origin}, got {type(value).__name__}.")
    for number, each in enumerate(value, first_row):
        try:
            row = np.asarray(each)
            got = f"{each!r:.60}"
        except ValueError:
            row, got = np.empty(0, object), "numbers of different lengths"
        if row.dtype.kind not in "biuf":
            raise DataError(
                f"The array {name!r} of {origin} expects numbers, got {got} in row {number}.", hint=_NUMBERS
            )
        if found and row.shape != found[0].shape:
            raise DataError(
                f"The array {name!r} of {origin} expects rows of one shape, got {found[0].shape} in row {first_row} "
                f"and {row.shape} in row {number}.",
                hint="Cut or fill up what is ragged.",
            )
        found.append(row)
    return np.array(found)


def _texts(value: Any) -> NDArray[Any]:
    """Ids of any kinds as text; nothing at all is empty text."""
    return np.array([_text(each) for each in value], dtype=np.str_)


def _text(value: Any) -> str:
    if value is None or value != value:
        return ""
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
