"""Arrays that stay in a file: rows are read when they are asked for. Nothing is mapped into memory.

Reading a mapped file that somebody makes shorter meanwhile ends the process with SIGBUS, which Python cannot catch. A
read comes short instead, and says so. Nor do rows have to be aligned, which those in an ``.npz`` never are.
"""

from __future__ import annotations

import io
import itertools
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgefl.errors import DataNotReadyError

__all__ = ["DataFile", "FileRows", "changed"]

_PIECE = 1 << 18
"""About how many bytes are read at once to pick rows out of them; they fit a processor's cache."""
_JUMP = 1 << 12
"""Bytes between two rows from which on it costs less to read each by itself, 1 to 2 µs, than all that lies between."""


def changed(path: object) -> DataNotReadyError:
    """Makes the error that is raised when a file is not what it was."""
    return DataNotReadyError(
        f"The data file {path} was changed while it was being read.",
        hint="Write a new file and rename it over the old one (os.replace), instead of writing into the old one.",
    )


class DataFile:
    """A file of data, open for as long as somebody holds this; another one of the same name changes nothing.

    Args:
        path: of the file.

    Attributes:
        path: the same.
        size: its bytes.

    Raises:
        OSError: it cannot be opened.
    """

    def __init__(self, path: Path) -> None:
        self._descriptor = -1
        self._descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0))
        self.path = path
        self._stamp = self._read_stamp()
        self.size = self._stamp[0]

    def __del__(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)

    def stream(self) -> io.BufferedReader:
        """Opens the same file to read headers with; closing that leaves this one open."""
        return open(self._descriptor, "rb", closefd=False)

    def check(self) -> None:
        """Makes sure that the file is what it was when it was opened.

        Raises:
            DataNotReadyError: it was written to, or cannot be read any more.
        """
        try:
            stamp = self._read_stamp()
        except OSError as error:
            raise self._unreadable(error) from error
        if stamp != self._stamp:
            raise changed(self.path)

    def read(self, offset: int, into: memoryview) -> None:
        """Fills a buffer of bytes from an offset on.

        Raises:
            DataNotReadyError: the file has become shorter, or cannot be read any more.
        """
        try:
            done = os.preadv(self._descriptor, (into,), offset)
            while done < into.nbytes:  # at most 2 GB come at once
                more = os.preadv(self._descriptor, (into[done:],), offset + done)
                if more == 0:
                    raise changed(self.path)
                done += more
        except OSError as error:
            raise self._unreadable(error) from error

    def read_each(self, offsets: Sequence[int], into: Sequence[tuple[memoryview]]) -> None:
        """Fills buffers of one size, each from an offset of its own; see `read`."""
        try:
            done = list(map(os.preadv, itertools.repeat(self._descriptor), into, offsets))
        except OSError as error:
            raise self._unreadable(error) from error
        if min(done) != into[0][0].nbytes:
            for offset, (one,) in zip(offsets, into, strict=True):
                self.read(offset, one)  # says what is wrong, if anything is

    def _read_stamp(self) -> tuple[int, int]:
        found = os.fstat(self._descriptor)
        return found.st_size, found.st_mtime_ns

    def _unreadable(self, error: OSError) -> DataNotReadyError:
        return DataNotReadyError(f"The data file {self.path} cannot be read any more: {error.strerror or error}.")


class FileRows:
    """An array in a file, in C order.

    Args:
        file: that holds it.
        offset: of its first byte.
        shape: ``(rows, ...)``, nothing of it 0.
        dtype: of any byte order.

    Attributes:
        file, shape, dtype: the same.
        ndim, size, nbytes: as of a numpy array.
    """

    def __init__(self, file: DataFile, offset: int, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        self.file, self.shape, self.dtype = file, shape, dtype
        self._offset = offset
        self.ndim, self.size = len(shape), int(np.prod(shape, dtype=np.int64))
        self.nbytes = self.size * dtype.itemsize
        self._width = self.nbytes // shape[0]

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: slice) -> NDArray[Any]:
        """Consecutive rows as a new array."""
        start, stop, _ = rows.indices(len(self))
        found = np.empty((stop - start, *self.shape[1:]), self.dtype)
        self.file.read(self._offset + start * self._width, _bytes_of(found))
        return found

    def pieces(self, count: int) -> Iterator[tuple[int, NDArray[Any]]]:
        """All rows, so many at a time, each time in the same array; and the row at which each piece begins."""
        raw = np.empty((min(count, len(self)), *self.shape[1:]), self.dtype)
        for start in range(0, len(self), count):
            piece = raw[: len(self) - start]
            self.file.read(self._offset + start * self._width, _bytes_of(piece))
            yield start, piece

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        """All of it, in memory."""
        found = self[:]
        self.file.check()
        return found if dtype is None else found.astype(dtype, copy=False)

    def with_row_shape(self, shape: tuple[int, ...]) -> FileRows:
        """The same numbers in rows of another shape."""
        return FileRows(self.file, self._offset, (len(self), *shape), self.dtype)

    def part(self, start: int, stop: int) -> FileRows:
        """Consecutive rows, at least one, which stay in the file too."""
        return FileRows(self.file, self._offset + start * self._width, (stop - start, *self.shape[1:]), self.dtype)

    def has_neighbours(self, count: int) -> bool:
        """Says whether so many rows, drawn at random, lie close enough to be read together."""
        return self.nbytes < count * _JUMP

    def reader(self, out: NDArray[Any]) -> Callable[[NDArray[np.intp]], None]:
        """A function that reads rows, one by one, into an array.

        Args:
            out: of shape ``[n, ...]``, this type and C order.

        Returns:
            A function of the rows' numbers, shape ``[n]``. It raises `DataNotReadyError` when the file was changed.
        """
        file, width, content, count = self.file, self._width, _bytes_of(out), len(out)
        rows_of_out = [(content[place * width : (place + 1) * width],) for place in range(count)]

        def read(rows: NDArray[np.intp]) -> None:
            if _are_consecutive(rows):
                file.read(self._offset + int(rows[0]) * width, content)
            else:
                file.read_each((rows.astype(np.int64) * width + self._offset).tolist(), rows_of_out)
            file.check()

        return read

    def gather(self, rows: NDArray[np.intp]) -> tuple[NDArray[Any], NDArray[np.intp]]:
        """Reads many rows in any order, piece by piece of the file.

        Args:
            rows: their numbers, shape ``[n]``.

        Returns:
            The rows as they lie in the file, ``[n, ...]``, and where among them each of the wanted ones is, ``[n]``.

        Raises:
            DataNotReadyError: the file was changed since it was opened.
        """
        found = np.empty((len(rows), *self.shape[1:]), self.dtype)
        if _are_consecutive(rows):
            self.file.read(self._offset + int(rows[0]) * self._width, _bytes_of(found))
            where = np.arange(len(rows))
        else:
            where = self._gather(rows, found)
        self.file.check()
        return found, where

    def _gather(self, rows: NDArray[np.intp], found: NDArray[Any]) -> NDArray[np.intp]:
        bits = max(0, (_PIECE // self._width).bit_length() - 1)
        pieces = rows >> bits
        if len(self) >> bits < 1 << 16:
            pieces = pieces.astype(np.uint16)  # which numpy sorts digit by digit, in a tenth of the time
        order = np.argsort(pieces, kind="stable")
        rows = rows[order]
        ends = np.flatnonzero(np.diff(pieces[order])) + 1
        raw = np.empty((1 << bits, *self.shape[1:]), self.dtype)
        for begin, end in itertools.pairwise([0, *ends.tolist(), len(rows)]):
            wanted = rows[begin:end]
            first = int(wanted.min())
            read = raw[: int(wanted.max()) - first + 1]
            self.file.read(self._offset + first * self._width, _bytes_of(read))
            read.take(wanted - first, 0, found[begin:end], "clip")
        where = np.empty_like(order)
        where[order] = np.arange(len(order))
        return where


def _are_consecutive(rows: NDArray[np.intp]) -> bool:
    return bool(rows[-1] - rows[0] == len(rows) - 1 and (np.diff(rows) == 1).all())


def _bytes_of(array: NDArray[Any]) -> memoryview:
    return array.reshape(-1).view(np.uint8).data
