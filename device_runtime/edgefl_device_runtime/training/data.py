"""A user's arrays as the model file takes them: checked once, never copied where that can be avoided."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgefl.errors import DataError, listed
from edgefl.manifest import ModelManifest
from edgefl_device_runtime.training.file_rows import FileRows
from edgefl_device_runtime.training.structures import flatten, keys, keys_by_position
from edgefl_device_runtime.training.values import Expected, check_finite

__all__ = ["Column", "Dataset", "Intake", "prepare"]

_SMALL = 1 << 17
"""Elements up to which an array of another type (labels, mostly) is converted as a whole instead of batch by batch."""


@dataclass(frozen=True)
class Column:
    """One input's data, one row each.

    Attributes:
        name: the input's name in the manifest.
        data: shape ``[rows, ...]``: C-contiguous and of native byte order, a view of the user's array wherever
            possible; or rows that stay in a file.
        dtype: the type that the model takes; every value fits it.
    """

    name: str
    data: NDArray[Any] | FileRows
    dtype: np.dtype[Any]


@dataclass(frozen=True)
class Dataset:
    """Inputs, targets and row weights of equal length.

    Attributes:
        columns: inputs, then targets.
        sample_weight: float32 ``[rows]``, or None when every row weighs 1.
        rows: at least 1.
    """

    columns: tuple[Column, ...]
    sample_weight: NDArray[np.float32] | None
    rows: int

    def part(self, start: int, stop: int) -> Dataset:
        """Some of the rows; those in files are read."""
        columns = tuple(replace(column, data=column.data[start:stop]) for column in self.columns)
        weights = None if self.sample_weight is None else self.sample_weight[start:stop]
        return Dataset(columns, weights, stop - start)


def prepare(
    manifest: ModelManifest,
    signature: str,
    x: Any,
    y: Any = None,
    sample_weight: Any = None,
    *,
    with_targets: bool = True,
) -> Dataset:
    """Checks data against a signature once; see `Intake`."""
    return Intake(manifest, signature, with_targets=with_targets).prepare(x, y, sample_weight)


class Intake:
    """A signature's demands on a user's data, looked up once for many batches.

    Args:
        manifest: the model's.
        signature: whose inputs to fit.
        with_targets: False where the signature takes no targets.
    """

    def __init__(self, manifest: ModelManifest, signature: str, *, with_targets: bool = True) -> None:
        specs = {spec.name: spec for spec in manifest.signatures[signature].inputs}
        targets = manifest.targets if with_targets else ()
        self._inputs = {
            name: Expected("input", specs[name], entries=manifest.index_sizes.get(name)) for name in manifest.inputs
        }
        self._targets = {
            each.name: Expected("target", specs[each.name], each.classes, bounds=each.bounds, ignored=each.ignored)
            for each in targets
        }
        self._aliases = {target.output: target.name for target in targets}
        self._of_inputs = _Nesting(manifest.input_structure, dict(enumerate(manifest.inputs)))
        named = {target.output: target.name for target in targets}
        self._of_targets = _Nesting(
            manifest.output_structure,
            {index: named[output] for index, output in enumerate(manifest.outputs) if output in named},
        )
        both = (*self._inputs.values(), *self._targets.values())
        self._pair = (both[0], both[1]) if len(self._inputs) == len(self._targets) == 1 else None

    def take_batch(self, x: Any, y: Any, rows: int) -> tuple[NDArray[Any], NDArray[Any]] | None:
        """Input and target of a small batch that needs nothing done to it, at the least cost; else None.

        None also where `prepare` has to take a closer look, or finds out what is wrong.
        """
        if self._pair is None or type(x) is not np.ndarray or type(y) is not np.ndarray:
            return None
        first, second = self._pair
        if not (first.fits_as_it_is(x) and second.fits_as_it_is(y) and len(x) == len(y) == rows):
            return None
        return x, y

    def prepare(self, x: Any, y: Any = None, sample_weight: Any = None) -> Dataset:
        """Checks data.

        Args:
            x: an array, a list of arrays in the order of ``manifest.inputs``, or a dict by name.
            y: the same for the targets, whose names are also those of the model's outputs.
            sample_weight: one number of at least 0 for each row, or None.

        Raises:
            DataError: a name, shape, type, length, label or number does not fit.
        """
        columns = [
            _column(self._inputs[name], array) for name, array in _by_name("input", self._inputs, self._of_inputs, x)
        ]
        if self._targets:
            if y is None:
                names = listed(self._of_targets.called.get(name, name) for name in self._targets)
                raise DataError(f"Targets are missing: the model is trained towards {names}.", hint="Give y.")
            self._of_targets.require_keys(y)
            given = _by_name("target", self._targets, self._of_targets, y, self._aliases)
            columns += [_column(self._targets[name], array) for name, array in given]
        rows = len(columns[0].data)
        if any(len(column.data) != rows for column in columns):
            lengths = {column.name: len(column.data) for column in columns}
            raise DataError(
                f"Every array must have the same number of rows, got {_listed(lengths)}.",
                hint="Row i of every input, target and weight belongs to example i.",
            )
        if rows == 0:
            raise DataError("The data has no rows.", hint="Give at least one example.")
        return Dataset(tuple(columns), _row_weights(sample_weight, rows), rows)


class _Nesting:
    """The way in which a model nests its inputs or its targets, for whoever gives them as Keras takes them.

    Args:
        structure: of the manifest.
        names: of the signature's inputs by position.

    Attributes:
        called: the keys of those that a dict has, by name.
    """

    def __init__(self, structure: Any, names: Mapping[int, str]) -> None:
        self._structure, self._names = structure, names
        by_position = keys_by_position(structure)
        self.called = {name: by_position[position] for position, name in names.items() if position in by_position}

    def named(self, given: Any) -> Any:
        """The arrays by name where they are nested as the model nests them; else what was given."""
        if self._structure is None or isinstance(given, (np.ndarray, FileRows)):
            return given
        found = flatten(self._structure, given)
        if found is None:
            return given
        # What belongs to no target is left out, as Keras leaves it out.
        return {self._names[position]: value for position, value in found.items() if position in self._names}

    def require_keys(self, given: Any) -> None:
        """Refuses a list where a dict tells what belongs to which output.

        Raises:
            DataError: names the keys.
        """
        wanted = keys(self._structure) if len(self._names) > 1 else ()
        if wanted and not isinstance(given, Mapping):
            raise DataError(
                f"The model's outputs are a dict of {listed(wanted)}; y is a {type(given).__name__}.",
                hint="Give y as a dict with these keys.",
            )


def _by_name(
    what: str, names: Collection[str], nesting: _Nesting, original: Any, aliases: Mapping[str, str] | None = None
) -> Iterator[tuple[str, NDArray[Any] | FileRows]]:
    """Pairs the names with what was given for each, in their order."""
    given = nesting.named(original)
    if len(names) == 1 and isinstance(given, (np.ndarray, FileRows)):
        yield next(iter(names)), given
        return
    called = listed(nesting.called.get(name, name) for name in names)
    expected = f"Expected {len(names)} {what}{'s' if len(names) != 1 else ''} ({called})"
    if isinstance(given, Mapping):
        renamed = {
            (aliases or {}).get(name, name) if name not in names else name: value for name, value in given.items()
        }
        missing = [name for name in names if name not in renamed]
        unknown = [name for name in renamed if name not in names]
        if missing or unknown or len(renamed) != len(given):
            raise DataError(
                f"{expected}; got {listed(map(repr, original)) or 'none'}.",
                hint="Use these names as the keys of the dict.",
            )
        values = [renamed[name] for name in names]
    elif len(names) == 1:
        alone = isinstance(given, (list, tuple)) and len(given) == 1 and isinstance(given[0], np.ndarray)
        values = [given[0] if alone and given[0].ndim > 0 else given]
    else:
        if not isinstance(given, (list, tuple)) or len(given) != len(names):
            count = len(given) if isinstance(given, (list, tuple)) else type(given).__name__
            raise DataError(f"{expected}; got {count}.", hint="Give a list of arrays in this order, or a dict by name.")
        values = list(given)
    for name, value in zip(names, values, strict=True):
        if isinstance(value, FileRows):
            yield name, value
            continue
        try:
            array = np.asarray(value)
        except ValueError as error:
            raise DataError(f"{what.capitalize()} {name!r} is not an array: {error}.", hint=_NUMBERS) from error
        yield name, array


def _column(expected: Expected, array: NDArray[Any] | FileRows) -> Column:
    if not isinstance(array, FileRows) and expected.fits_as_it_is(array):
        return Column(expected.name, array, expected.dtype)
    title, dtype = expected.title, expected.dtype
    if array.dtype.kind not in "biuf":
        raise DataError(f"{title} expects numbers ({dtype.name}), got {array.dtype}.", hint=_NUMBERS)
    array = _fit_rank(title, expected.shape, array, expected.classes)
    expected.check(array)
    if isinstance(array, FileRows):
        array.file.check()  # what was looked at is what will be read
        return Column(expected.name, array, dtype)
    if not array.flags.c_contiguous or not array.dtype.isnative or not array.flags.aligned:
        # numpy's take would silently copy all of it for every batch.
        array = np.ascontiguousarray(array, array.dtype.newbyteorder("="))
    if array.size <= _SMALL:
        array = array.astype(dtype, copy=False)
    return Column(expected.name, array, dtype)


def _fit_rank(
    title: str, wanted: tuple[int, ...], array: NDArray[Any] | FileRows, classes: int | None
) -> NDArray[Any] | FileRows:
    """Adds or drops a last dimension of 1, as Keras does; anything else must fit."""
    if array.ndim > 0 and (array.shape[1:] == (*wanted, 1) or (*array.shape[1:], 1) == wanted):
        if isinstance(array, FileRows):
            return array.with_row_shape(wanted)
        return array[..., 0] if array.shape[1:] == (*wanted, 1) else array[..., np.newaxis]
    if array.ndim == 0 or array.shape[1:] != wanted:
        hint = f"Every row must have shape {wanted}."
        if title.startswith("Target") and classes is None and array.ndim > 0:
            shape = ",".join(map(str, array.shape[1:])) or '""'
            hint += f" If the loss takes such targets in Keras, convert the model with --target-shape {shape}."
        if classes is not None and array.shape[1:] == (*wanted, classes):
            hint = "The loss takes class numbers; turn one-hot rows into them with y.argmax(-1)."
        elif title.startswith("Target") and wanted and array.ndim > 0 and array.shape[1:] == wanted[:-1]:
            hint = f"The loss takes one value per class; turn class numbers into rows with np.eye({wanted[-1]})[y]."
        elif array.shape == wanted:
            hint = "For a single example add the dimension of rows: x[np.newaxis]."
        elif array.ndim > 0 and math.prod(array.shape[1:]) == math.prod(wanted):
            given = "y" if title.startswith("Target") else "x"
            shape = ", ".join(map(str, (-1, *wanted)))
            hint = f"A row has as many numbers, in another shape: {given}.reshape({shape})."
        raise DataError(f"{title} expects shape {_rows(wanted)}, got {array.shape}.", hint=hint)
    return array


def _row_weights(sample_weight: Any, rows: int) -> NDArray[np.float32] | None:
    if sample_weight is None:
        return None
    if isinstance(sample_weight, Mapping) or (
        isinstance(sample_weight, (list, tuple)) and any(np.size(each) != 1 for each in sample_weight)
    ):
        raise DataError(
            "sample_weight has weights for each output, expected one number per row, which holds for all of them.",
            hint="Give one array; how much an output counts for is compiled into the model (`loss_weights`).",
        )
    array = np.asarray(sample_weight)
    if array.shape == (rows, 1):
        array = array[:, 0]
    if array.shape != (rows,) or array.dtype.kind not in "biuf":
        raise DataError(
            f"sample_weight expects one number per row, shape ({rows},), got {array.dtype} {array.shape}.",
            hint="Give one weight for each example." if array.ndim else "A number of rows is `batch_size=`.",
        )
    check_finite("sample_weight", array, np.dtype(np.float32))
    weights = array.astype(np.float32)
    if weights.min() < 0:
        raise DataError(
            f"sample_weight must not be negative, got {weights.min():g} in row {int(weights.argmin())}.",
            hint="Use 0 for rows that shall not count.",
        )
    # Weight 0 means padding to the model. A real row of weight 0 counts and adds nothing: the smallest normal float32.
    return np.maximum(weights, np.finfo(np.float32).tiny, out=weights)


def _rows(shape: tuple[int, ...]) -> str:
    return f"({', '.join(['rows', *map(str, shape)])}{',' if not shape else ''})"


def _listed(lengths: Mapping[str, int]) -> str:
    return listed(f"{name}: {length}" for name, length in lengths.items())


_NUMBERS = "Give a numpy array of numbers; turn text and categories into numbers first."
