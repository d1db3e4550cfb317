"""Rows that come piece by piece become arrays: in memory while they are few, in files that have no name otherwise."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator, Mapping
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from edgefl.errors import DataError, storage_error
from edgefl_simulation.data.base import first_value

__all__ = ["ENOUGH", "Gathering", "Spool"]

IN_MEMORY = 64 << 20
"""Bytes of an array up to which it stays in memory."""
ENOUGH = 1 << 22
"""Bytes of a piece from which on a larger one gains nothing."""
_NO_NUMBERS = "Turn text and categories into numbers first: classes are 0, 1, 2, …"


class Spool:
    """An array that grows.

    What is larger than `IN_MEMORY` goes to a file in the folder for temporary files (TMPDIR), which the system removes
    as soon as nobody holds the array any more.
    """

    def __init__(self) -> None:
        self._pieces: list[NDArray[Any]] = []
        self._bytes, self.rows = 0, 0
        self._file: IO[bytes] | None = None
        self._form: tuple[np.dtype[Any], tuple[int, ...]] | None = None

    def add(self, piece: NDArray[Any]) -> None:
        """Adds rows, ``[rows, …]`` of one type and shape each time.

        Raises:
            StorageError: the disk is full.
        """
        self._form = self._form or (piece.dtype, piece.shape[1:])
        piece = np.array(piece, self._form[0], order="C")  # a copy: the next piece may lie in the same memory
        self._bytes += piece.nbytes
        self.rows += len(piece)
        if self._file is None and self._bytes <= IN_MEMORY:
            self._pieces.append(piece)
            return
        with _told():
            if self._file is None:
                self._file = tempfile.TemporaryFile(prefix="edgefl-")  # noqa: SIM115 - held as long as the array
                for each in self._pieces:
                    self._file.write(each.data)
                self._pieces.clear()
            self._file.write(piece.data)

    def array(self) -> NDArray[Any]:
        """All rows; of those in a file, a map.

        Raises:
            StorageError: the disk is full.
        """
        dtype, row = self._form or (np.dtype(np.float32), ())
        if self._file is None:
            return np.concatenate(self._pieces) if self._pieces else np.empty((0, *row), dtype)
        with _told():
            self._file.flush()
            # A plain array: one that knows of its file is slow to cut.
            found = np.memmap(self._file, dtype, "r", shape=(self.rows, *row))
        return np.asarray(found).view(np.ndarray)


class Gathering:
    """Arrays by name that grow together.

    Columns of single numbers share one spool, as records: a table may have more columns than a process may have files.

    Args:
        origin: what the user calls the data.
    """

    def __init__(self, origin: str) -> None:
        self._origin = origin
        self._spools: dict[str, Spool] = {}
        self._records = Spool()
        self._record: np.dtype[Any] | None = None
        self._forms: dict[str, tuple[np.dtype[Any], tuple[int, ...]]] = {}
        self.rows = 0

    def add(self, piece: Mapping[str, NDArray[Any]]) -> None:
        """Adds some rows of every array.

        Raises:
            DataError: they are no numbers, differ in their number of rows, or differ from those before.
            StorageError: the disk is full.
        """
        if not self._forms:
            self._begin(piece)
        lengths = {name: len(array) for name, array in piece.items()}
        if len(set(lengths.values())) > 1 or piece.keys() != self._forms.keys():
            raise DataError(f"Expected rows of {', '.join(self._forms)} in {self._origin}, got {lengths}.")
        for name, array in piece.items():
            dtype, row = self._forms[name]
            if array.shape[1:] != row or not np.can_cast(array.dtype, dtype, "same_kind"):
                raise DataError(
                    f"The array {name!r} of {self._origin} changes from row {self.rows} on: expected {dtype} of shape "
                    f"{row}, got {array.dtype} of shape {array.shape[1:]}.",
                    hint="Every row must have the same shape and type; cut or fill up what is ragged.",
                )
        count = next(iter(lengths.values()))
        if self._record is not None:
            records = np.empty(count, self._record)
            for name in self._record.names or ():
                records[name] = piece[name]
            self._records.add(records)
        for name, spool in self._spools.items():
            spool.add(piece[name].astype(self._forms[name][0], copy=False))
        self.rows += count

    def arrays(self) -> dict[str, NDArray[Any]]:
        """All rows of every array, in the order of the first piece.

        Raises:
            StorageError: the disk is full.
        """
        records = self._records.array() if self._record is not None else None
        return {
            name: self._spools[name].array() if name in self._spools else records[name]  # type: ignore[index]
            for name in self._forms
        }

    def _begin(self, piece: Mapping[str, NDArray[Any]]) -> None:
        for name, array in piece.items():
            if array.ndim == 0 or array.dtype.kind not in "biuf":
                raise DataError(
                    f"The array {name!r} of {self._origin} expects numbers, got {_kind(array)}.", hint=_NO_NUMBERS
                )
            self._forms[name] = array.dtype, array.shape[1:]
        single = [(name, dtype) for name, (dtype, row) in self._forms.items() if not row]
        if len(single) > 1:
            self._record = np.dtype(single)
        self._spools = {name: Spool() for name in self._forms if self._record is None or name not in dict(single)}


@contextlib.contextmanager
def _told() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise storage_error(error, "write rows to", tempfile.gettempdir()) from error


def _kind(array: NDArray[Any]) -> str:
    if array.ndim == 0:
        return "a single value"
    first = f": {first_value(array)} in row 0" if array.size else ""
    return ("text" if array.dtype.kind in "US" else str(array.dtype)) + first
