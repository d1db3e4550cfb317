"""Finds features and target among arrays or columns: those that the user names, else as the field calls them."""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from edgefl.errors import DataError
from edgefl.manifest import ModelManifest
from edgefl_simulation.data.advice import AS_OWNER, COUNTED, FEATURES, TARGET
from edgefl_simulation.data.base import OWNER, Arrays, DataSet, first_value
from edgefl_simulation.data.spool import ENOUGH, Spool

__all__ = ["TARGETS", "WEIGHT", "chosen", "conventional", "fitted_to", "missing", "require_owner", "target_of"]

TARGETS = ("y", "label", "labels", "target", "targets")
"""Names by which a target is known where nobody says which it is."""
WEIGHT = "sample_weight"


def chosen(data: DataSet, features: Sequence[str], target: str, origin: str, owner: str = "") -> DataSet:
    """Takes the features and the target that the user names, and leaves the rest.

    Args:
        data: all arrays, or columns.
        features: their names, in the order of the model's input; none: all but the target.
        target: its name; empty: as `target_of` finds it.
        origin: what the user calls the data.
        owner: the array, or column, that says whose each row is; empty: none does.

    Returns:
        The target as ``y``; a single feature as ``x``, several under their names.

    Raises:
        DataError: there is none of a name, or one stands twice.
    """
    if not features and not target:
        return data
    target = target or target_of(data.arrays) or ""
    if not target:
        raise DataError(
            f"Nothing says which array of {origin} is the target; it holds {', '.join(data.arrays)}.",
            hint="Name the target.",
        )
    wanted = tuple(features) or tuple(name for name in data.arrays if name not in (target, WEIGHT))
    for name in (*wanted, target):
        if name not in data.arrays:
            raise missing(name, data.arrays, origin, owner)
    if not wanted or len({*wanted, target}) != len(wanted) + 1:
        raise DataError(f"Expected different names as features and target, got {', '.join((*wanted, target))}.")

    def renamed(arrays: Arrays) -> dict[str, NDArray[np.generic]]:
        if not arrays:
            return {}
        if lacking := [name for name in (*wanted, target) if name not in arrays]:
            raise DataError(f"The rows for tests of {origin} have no array or column {lacking[0]!r}.")
        found = {"x": arrays[wanted[0]]} if len(wanted) == 1 else {_own(name): arrays[name] for name in wanted}
        weight = {WEIGHT: arrays[WEIGHT]} if WEIGHT in arrays else {}
        return {**found, **weight, "y": arrays[target]}

    return data.with_arrays(renamed(data.arrays), renamed(data.held_out))


def require_owner(owner: str, names: Iterable[str], origin: str) -> None:
    """Makes sure that the array, or column, is there which somebody says the owners are in.

    Args:
        owner: its name; `OWNER`, which nobody has to say, and nothing at all are not looked for.
        names: that are there.
        origin: what the user calls the data.

    Raises:
        DataError: it is not there.
    """
    names = list(names)
    if owner not in ("", OWNER, *names):
        raise missing(owner, names, origin)


def missing(name: str, names: Iterable[str], origin: str, owner: str = "") -> DataError:
    """The error for an array or column that is asked for and not there.

    Args:
        name: that was asked for.
        names: that are there.
        origin: what the user calls the data.
        owner: one more, which says whose each row is and is nothing else; empty: there is none.
    """
    near = difflib.get_close_matches(name, names := list(names))
    return DataError(
        f"{origin} has no array or column {name!r:.80}; it holds {_listed(names)}"
        + (f", and {owner!r:.80}, which says whose each row is." if owner and owner not in names else "."),
        hint=f"Did you mean {near[0]}?" if near else None,
    )


def _own(name: str) -> str:
    """A column's name among several, which is neither that of all inputs nor that of the target."""
    return f"column {name}" if name in ("x", "y", WEIGHT) else name


def target_of(arrays: Arrays) -> str | None:
    """The name of what must be the target: called like one, or the last column of a table; None: nobody knows."""
    found = next((name for name in TARGETS if name in arrays), None)
    return found or ([name for name in arrays if name != WEIGHT][-1] if _is_table(arrays) else None)


def conventional(data: DataSet) -> DataSet:
    """The same with the target as ``y`` and, where it is one array, the input as ``x``: as devices find them.

    Whose names nobody can interpret keeps them.
    """
    return _renamed(data, target_of(data.arrays))


def fitted_to(data: DataSet, manifest: ModelManifest) -> DataSet:
    """The same as the model takes it: what it has a name for stays; columns of numbers become rows of its input.

    Args:
        data: all rows.
        manifest: the model's.

    Raises:
        DataError: the columns are more or fewer than the input has numbers, or several arrays could be it.
        StorageError: the disk is full.
    """
    if len(manifest.inputs) != 1:
        return data
    name = manifest.inputs[0]
    (spec,) = [each for each in manifest.signatures["train"].inputs if each.name == name]
    shape = tuple(spec.shape[1:])
    if len(manifest.targets) != 1:
        return data.fitted("x", shape)
    target = manifest.targets[0]
    known = next((each for each in (target.name, target.output) if each in data.arrays and each != name), None)
    found = known or target_of({each: array for each, array in data.arrays.items() if each != name})
    if found is None:
        return data.fitted("x", shape)
    data = _renamed(data, found, name)
    if "x" not in data.arrays and _is_table(data.arrays):
        data = _stacked(data, shape, np.dtype(spec.dtype), name)
    others = [each for each in data.arrays if each not in ("y", WEIGHT)]
    if "x" not in data.arrays and len(others) > 1:
        raise DataError(
            f"Nothing says which array is the model's input {name!r}; the data holds {_listed(others)} beside the "
            "target.",
            hint=f"Name it ({FEATURES}), as in {others[0]}. {AS_OWNER}",
        )
    return data.fitted("x", shape)


def _renamed(data: DataSet, target: str | None, name: str = "x") -> DataSet:
    """Target and input under the names ``y`` and ``x``, the input where it is called `name` or is a single array."""
    if target is None:
        return data
    others = [each for each in data.arrays if each not in (target, WEIGHT)]
    known = next((each for each in (name, "x") if each in others), None)
    source = known or (others[0] if len(others) == 1 else None)
    names = {target: "y"} if source is None else {source: "x", target: "y"}

    def renamed(arrays: Arrays) -> dict[str, NDArray[np.generic]]:
        ordered = [each for each in arrays if each != target] + [target] * (target in arrays)
        return {names.get(each, each): arrays[each] for each in ordered}

    return data.with_arrays(renamed(data.arrays), renamed(data.held_out))


def _stacked(data: DataSet, shape: tuple[int, ...], dtype: np.dtype[np.generic], name: str) -> DataSet:
    columns = [each for each in data.arrays if each not in ("y", WEIGHT)]
    wanted = math.prod(shape)
    if len(columns) != wanted:
        raise DataError(
            f"Input {name!r} expects {wanted} numbers a row, and the table has {len(columns)} columns beside the "
            f"target: {_listed(columns)}.",
            hint=f"Say which columns are features ({FEATURES}) and which one is the target ({TARGET}).",
        )

    def stacked(arrays: Arrays) -> dict[str, NDArray[np.generic]]:
        if not arrays:
            return {}
        if lacking := [each for each in columns if each not in arrays]:
            raise DataError(f"The rows for tests have no column {lacking[0]!r}.")
        rows, step = len(arrays[columns[0]]), max(1, ENOUGH // (wanted * dtype.itemsize))
        spool = Spool()
        for start in range(0, rows, step):
            piece = np.empty((min(step, rows - start), wanted), dtype)
            for place, each in enumerate(columns):
                piece[:, place] = _numbers(each, arrays[each][start : start + step], dtype, start)
            spool.add(piece.reshape(-1, *shape))
        kept = {each: array for each, array in arrays.items() if each not in columns}
        return {"x": spool.array(), **kept}

    return data.with_arrays(stacked(data.arrays), stacked(data.held_out))


def _numbers(name: str, values: NDArray[np.generic], dtype: np.dtype[np.generic], start: int) -> NDArray[np.generic]:
    """A piece of a column, checked: once it is in a row, nobody could say which column was wrong."""
    if values.dtype.kind not in "biuf":
        kind = "text" if values.dtype.kind in "US" else str(values.dtype)
        raise DataError(
            f"The column {name!r} expects numbers, got {kind}: {first_value(values)} in row {start}.",
            hint="Turn text and categories into numbers first (one-hot, or one number each), or leave the column out.",
        )
    with np.errstate(over="ignore", invalid="ignore"):
        found = values.astype(dtype)
    wrong = ~np.isfinite(values) if values.dtype.kind == "f" else np.zeros(len(values), bool)
    if dtype.kind == "f":
        wrong |= ~np.isfinite(found)
        expected = f"finite {dtype.name} numbers"
    else:
        wrong |= found != values
        expected = f"whole numbers that fit {dtype.name}"
    if wrong.any():
        row = int(np.flatnonzero(wrong)[0])
        raise DataError(
            f"The column {name!r} expects {expected}, got {values[row]} in row {start + row}.",
            hint=f"Remove such rows or fill them in. {COUNTED}",
        )
    return found


def _is_table(arrays: Arrays) -> bool:
    return len(arrays) > 1 and all(array.ndim == 1 for array in arrays.values())


def _listed(names: Sequence[str] | Arrays) -> str:
    shown = list(names)
    return ", ".join(map(str, shown[:12])) + (f" and {len(shown) - 12} more" if len(shown) > 12 else "")
