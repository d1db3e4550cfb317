"""Parquet, one file or a folder of them, by pyarrow: read row group by row group, only the columns that are wanted."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgefl.errors import DataError, MissingDependencyError, first_line
from edgefl.parts import install_line
from edgefl_simulation.data.advice import AS_OWNER, LEFT_OUT
from edgefl_simulation.data.arrays import from_arrays
from edgefl_simulation.data.base import DataSet
from edgefl_simulation.data.columns import WEIGHT, missing, require_owner
from edgefl_simulation.data.owners import Owners
from edgefl_simulation.data.spool import Gathering

__all__ = ["read_parquet"]

_ROWS = 1 << 14
"""Rows that are read at a time."""


def read_parquet(path: Path, owner: str, wanted: Sequence[str]) -> DataSet:
    """Reads a table.

    Args:
        path: of the file, or of a folder with such files, which are read in the order of their names.
        owner: the column that says whose each row is, where there is one of this name.
        wanted: the columns to read beside it; none: all of them.

    Raises:
        DataError: it cannot be read, or a column holds text, nothing, or lists of different lengths.
        MissingDependencyError: pyarrow is not installed.
        StorageError: the disk is full.
    """
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError as error:
        raise MissingDependencyError(
            f"Reading {path} needs pyarrow, which is not there: {error}.",
            hint=f"Install it with: {install_line('tables')}",
        ) from error
    files = sorted(path.glob("*.parquet")) if path.is_dir() else [path]
    gathering, owners = Gathering(str(path)), Owners()
    owned: set[bool] = set()
    for file in files:
        try:
            opened = pq.ParquetFile(file, pre_buffer=False)  # one column after the other, instead of all of a group
            owned.add(owner in opened.schema_arrow.names)
            if len(owned) > 1:
                raise DataError(f"Expected a column {owner!r} in all files of {path} or in none; {file.name} differs.")
            require_owner(owner, opened.schema_arrow.names, str(path))
            for batch in _batches(opened, owner, wanted, file):
                columns = dict(zip(batch.schema.names, batch.columns, strict=True))
                if True in owned:
                    _add_owners(owners, columns.pop(owner))
                row = gathering.rows
                gathering.add({name: numbers_of(name, each, str(path), row) for name, each in columns.items()})
        except (pa.ArrowException, OSError) as error:
            raise DataError(
                f"Cannot read the Parquet file {file}: {first_line(error).rstrip('.')}.",
                hint="Is it one, and is it whole?",
            ) from error
    pa.default_memory_pool().release_unused()  # or it is kept for as long as the process lives
    if not gathering.rows:
        raise DataError(f"{path} has no rows.")
    arrays = gathering.arrays()
    if True not in owned:
        return from_arrays(arrays, owner, str(path))
    numbers, names = owners.finished()
    return from_arrays({**arrays, owner: numbers}, owner, str(path), names)


def numbers_of(name: str, column: Any, origin: str, row: int) -> NDArray[Any]:
    """A column of Arrow as an array.

    Args:
        name: of the column.
        column: a `pyarrow.Array` of numbers, or of lists of them.
        origin: what the user calls the data.
        row: the number of its first row.

    Returns:
        ``[rows]``, or ``[rows, …]`` for lists.

    Raises:
        DataError: it holds text, nothing, or lists of different lengths.
    """
    import pyarrow as pa

    kind = column.type
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    if column.null_count:
        place = row + column.is_null().to_numpy(zero_copy_only=False).argmax()
        raise DataError(
            f"The column {name!r} of {origin} expects numbers, got nothing (null) in row {place}.",
            hint=f"Remove such rows or fill them in, or {LEFT_OUT}.",
        )
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        return _lists(name, column, origin, row)
    if pa.types.is_decimal(kind):
        column = column.cast(pa.float64())
    elif not (pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind)):
        shown = f": {column[0].as_py()!r:.60} in row {row}" if len(column) else ""
        raise DataError(
            f"The column {name!r} of {origin} expects numbers, got {kind}{shown}.",
            hint=f"Turn text and categories into numbers first (pandas.factorize, one-hot), or {LEFT_OUT}. {AS_OWNER}",
        )
    elif pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    found: NDArray[Any] = column.to_numpy(zero_copy_only=False)
    return found


def _lists(name: str, column: Any, origin: str, row: int) -> NDArray[Any]:
    import pyarrow as pa

    if pa.types.is_fixed_size_list(column.type):
        width = column.type.list_size
    else:
        lengths = column.value_lengths().to_numpy(zero_copy_only=False)
        width = int(lengths[0]) if len(lengths) else 0
        if (lengths != width).any():
            place = int(np.flatnonzero(lengths != width)[0])
            raise DataError(
                f"The column {name!r} of {origin} expects lists of one length, got {width} numbers in row {row} and "
                f"{lengths[place]} in row {row + place}.",
                hint="Cut or fill up what is ragged.",
            )
    values = numbers_of(name, column.flatten(), origin, row * width)
    return values.reshape(len(column), width, *values.shape[1:])


def _batches(file: Any, owner: str, wanted: Sequence[str], path: Path) -> Iterator[Any]:
    names = list(file.schema_arrow.names)
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise DataError(f"Expected columns with different names in {path}, got {twice[0]!r:.80} twice.")
    if lacking := [name for name in wanted if name not in (*names, WEIGHT)]:
        raise missing(lacking[0], names, str(path))
    chosen = [name for name in names if name == owner or not wanted or name in wanted]
    yield from (batch for batch in file.iter_batches(_ROWS, columns=chosen) if batch.num_rows)


def _add_owners(owners: Owners, column: Any) -> None:
    """Adds ids of any kind; nothing (null) is an empty text."""
    import pyarrow as pa

    if not pa.types.is_dictionary(column.type):
        column = column.dictionary_encode()
    names = column.dictionary.to_pylist()
    numbers = column.indices
    if numbers.null_count:
        numbers, names = numbers.fill_null(len(names)), [*names, ""]
    owners.add_numbered(numbers.to_numpy(zero_copy_only=False), names)
