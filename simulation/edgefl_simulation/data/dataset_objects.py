"""Data sets of other libraries, recognised by their module's name: ``tf.data``, Hugging Face ``datasets``, pandas.

None of them is imported here: who has such an object has the library.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgefl.errors import DataError, first_line
from edgefl_simulation.data.arrays import as_array, from_arrays
from edgefl_simulation.data.base import DataSet
from edgefl_simulation.data.columns import WEIGHT, missing
from edgefl_simulation.data.owners import Owners
from edgefl_simulation.data.spool import Gathering

__all__ = ["from_object"]

_AT_ONCE = 1000
"""Examples that are asked for at a time."""
_NAMES = ("x", "y", "sample_weight")
_HELD_OUT = ("test", "validation")
"""Splits of Hugging Face that become the rows for tests: the first that is there."""


def from_object(data: Any, owner: str, wanted: Sequence[str]) -> DataSet | None:
    """Reads a data set of another library; None: it is none that is known.

    Args:
        data: a `tf.data.Dataset` of batches or of examples; a `datasets.Dataset`, also an iterable one, or a dict of
            splits; a `pandas.DataFrame`.
        owner: the column that says whose each row is, where there is one of this name.
        wanted: the columns to read beside it; none: all of them.

    Raises:
        DataError: its examples are not of one shape, are no numbers, or have no end.
        StorageError: there is no room for what does not fit into memory.
    """
    library = type(data).__module__.partition(".")[0]
    if library == "tensorflow" and hasattr(data, "element_spec"):
        return _gathered(_tensorflow(data), owner, "the tf.data data set")
    if library == "pandas" and hasattr(data, "columns"):
        if not data.columns.is_unique:
            raise DataError("Expected columns with different names in the DataFrame, got one twice.")
        names = [name for name in data.columns if not wanted or name in (*wanted, owner)]
        return from_arrays({str(name): data[name].to_numpy() for name in names}, owner, "the DataFrame")
    if library != "datasets" or not (isinstance(data, Mapping) or hasattr(data, "with_format")):
        return None
    if not isinstance(data, Mapping):
        return _gathered(_hugging_face(data, owner, wanted), owner, "the data set")
    if "train" not in data:
        raise DataError(
            f"Expected a split 'train', got {', '.join(map(repr, data)) or 'none'}.", hint="Choose one: data['…']."
        )
    train = _gathered(_hugging_face(data["train"], owner, wanted), owner, "the split 'train'")
    name = next((each for each in _HELD_OUT if each in data), None)
    if name is None:
        return train
    test = _gathered(_hugging_face(data[name], owner, wanted), owner, f"the split {name!r}")
    return train.with_arrays(train.arrays, test.arrays)


def _gathered(pieces: Iterator[Mapping[str, Any]], owner: str, origin: str) -> DataSet:
    gathering, owners, owned = Gathering(origin), Owners(), False
    for piece in pieces:
        row = gathering.rows
        arrays = {name: as_array(name, value, origin, owner, row) for name, value in piece.items()}
        if owner in arrays:
            owned = True
            owners.add(_text(each) for each in arrays.pop(owner).tolist())
        gathering.add(arrays)
    if not gathering.rows:
        raise DataError(f"Expected examples from {origin}, got none.")
    if not owned:
        return from_arrays(gathering.arrays(), "", origin)
    numbers, names = owners.finished()
    return from_arrays({**gathering.arrays(), owner: numbers}, owner, origin, names)


def _text(value: Any) -> Any:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value


def _hugging_face(data: Any, owner: str, wanted: Sequence[str]) -> Iterator[Mapping[str, Any]]:
    known = data.column_names
    if wanted and known is not None:
        if lacking := [name for name in wanted if name not in (*known, WEIGHT)]:
            raise missing(lacking[0], known, "The data set")
        data = data.select_columns([name for name in known if name in (*wanted, owner)])
    yield from data.with_format("numpy").iter(batch_size=_AT_ONCE)


def _tensorflow(data: Any) -> Iterator[Mapping[str, Any]]:
    if int(data.cardinality()) == -1:
        raise DataError("The tf.data data set repeats for ever.", hint="Leave out .repeat(), or add .take(n).")
    examples = data if _is_batched(data) else data.batch(_AT_ONCE)
    try:
        for element in examples.as_numpy_iterator():
            yield _by_name(element)
    except Exception as error:
        if not type(error).__module__.startswith("tensorflow"):
            raise
        # It says where in TensorFlow, before and behind.
        cause = re.sub(r"^\{\{.*?\}\} | \[Op:.*", "", first_line(error)).rstrip(".")
        raise DataError(
            f"The tf.data data set cannot be read: {cause}.", hint="Every example must have the same shape."
        ) from error


def _is_batched(data: Any) -> bool:
    """Tells batches from examples: by a first dimension that is open, or that all arrays have in common.

    Where all of them have one that is equal by chance or by ``drop_remainder``, the data set's own history says.
    """
    shapes = [spec.shape for spec in _leaves(data.element_spec)]
    if any(shape.rank is None for shape in shapes):
        raise DataError("The arrays of the tf.data data set have no known rank.", hint="Set it with ensure_shape.")
    if any(shape.rank == 0 for shape in shapes):
        return False
    first = {shape[0] for shape in shapes}
    if first == {None}:
        return True
    return len(first) == 1 and _was_batched(data)


def _was_batched(data: Any) -> bool:
    while True:
        name = type(data).__name__
        if "Unbatch" in name or "Batch" in name:
            return "Unbatch" not in name
        inputs = data._inputs() if hasattr(data, "_inputs") else []
        if len(inputs) != 1:
            return False
        (data,) = inputs


def _leaves(spec: Any) -> Iterator[Any]:
    if isinstance(spec, Mapping):
        for each in spec.values():
            yield from _leaves(each)
    elif isinstance(spec, (tuple, list)):
        for each in spec:
            yield from _leaves(each)
    elif type(spec).__name__ == "TensorSpec":
        yield spec
    else:
        raise DataError(
            f"Expected tensors from the tf.data data set, got {type(spec).__name__}.",
            hint="Ragged and sparse tensors must be made dense first.",
        )


def _by_name(element: Any) -> dict[str, NDArray[Any]]:
    if isinstance(element, Mapping):
        return {str(name): value for name, value in element.items()}
    if not isinstance(element, tuple) or len(element) not in (2, 3):
        raise DataError(
            "Expected elements (x, y), (x, y, sample_weight) or arrays by name from the tf.data data set, got "
            f"{f'a tuple of {len(element)}' if isinstance(element, tuple) else 'single arrays'}."
        )
    found: dict[str, NDArray[Any]] = {}
    for name, value in zip(_NAMES, element):
        if isinstance(value, tuple):
            raise DataError(
                f"Expected one array or a dict of arrays as {name}, got a tuple of {len(value)}.",
                hint="Name them like the model's inputs.",
            )
        found |= {str(key): array for key, array in value.items()} if isinstance(value, Mapping) else {name: value}
    return {name: np.asarray(value) for name, value in found.items()}
