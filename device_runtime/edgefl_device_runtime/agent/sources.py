"""The sources of local data: .npz, a folder of .npy, CSV, a Python function, or arrays."""

from __future__ import annotations

import csv
import errno
import importlib
import itertools
import math
import os
import stat
import struct
import sys
import time
import zipfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from edgefl.damaged_arrays import DAMAGED
from edgefl.errors import DataError, DataNotReadyError
from edgefl_device_runtime.tasks import Arrays
from edgefl_device_runtime.training.file_rows import DataFile, FileRows, changed

__all__ = ["Source", "open_source", "wrong_or_unfinished"]

Source = Callable[[], Arrays]
"""Gives the data as it is now. A task asks once, so data may be added between tasks."""

_Stamp = list[tuple[str, int, int, int]]
"""A stamp that changes when files do: name, time of the last change in nanoseconds, size and inode of each."""

_npy: Any = np.lib.format  # it has no type hints
_IN_MEMORY = 8 << 20
"""Bytes of a source that are held in memory, its smallest arrays first; a whole device may have 100 MB."""
_ATTEMPTS = 3
_SETTLES = 10.0
"""Seconds after the last change of a file during which it is rather unfinished than wrong."""
_KINDS = "an .npz file, a folder of .npy files, a .csv file, or module:function"


def open_source(
    data: Any, clock: Callable[[], float] = time.time, monotonic: Callable[[], float] = time.monotonic
) -> Source:
    """Finds out what kind of source is meant, and that it can be read.

    Args:
        data: a path, ``module:function``, a function, a pair ``(x, y)``, a triple ``(x, y, sample_weight)``, or a
            mapping of names to arrays. A function is called at the start of every task and returns one of the latter.
        clock: the time of day, to tell how long ago a file was written that is looked at for the first time.
        monotonic: seconds, to tell how long ago one has changed since then; the time of day may be set back meanwhile.

    Raises:
        DataError: it is none of these, or is not there. The source raises it when it cannot be read or is wrong, and
            `DataNotReadyError` when it is not there or not whole for the moment.
    """
    if callable(data):
        return lambda: _named(data(), "the function")
    if not isinstance(data, (str, os.PathLike)):
        arrays = _named(data, "the data")
        return lambda: arrays
    path = Path(data)
    try:
        is_folder, exists = path.is_dir(), path.exists()
    except OSError as error:  # not being there is none
        raise DataError(
            f"Cannot read the data {path}: {error.strerror or error}.", hint="Check where the data lies."
        ) from error
    if is_folder:
        return _Files(path, _read_folder, clock, monotonic)
    if path.suffix == ".npz" and exists:
        return _Files(path, _read_npz, clock, monotonic)
    if path.suffix.lower() == ".csv" and exists:
        return _Files(path, _read_csv, clock, monotonic)
    if path.suffix.lower() in (".npz", ".csv") or exists or ":" not in str(data):
        found = "a file of another kind" if exists else "no such file or folder"
        raise DataError(f"Expected {_KINDS} as data, got {str(data)!r}: {found}.", hint="Check where the data lies.")
    return _function(str(data))


def wrong_or_unfinished(source: Source, error: DataError) -> DataError:
    """Says what is wrong with a source's data; `DataNotReadyError` instead while its files are rather unfinished."""
    return source.wrong_or_unfinished(error) if isinstance(source, _Files) else error


class _Files:
    """Reads files again only when they have changed; what stays in a file is opened anew for every task."""

    def __init__(
        self,
        path: Path,
        read: Callable[[Path], Mapping[str, NDArray[Any] | _Stored]],
        clock: Callable[[], float],
        monotonic: Callable[[], float],
    ) -> None:
        self.path = path
        self._read = read
        self._clock = clock
        self._monotonic = monotonic
        self._looked_at: _Stamp | None = None
        self._changed = 0.0
        self._seen: object = None
        self._arrays: Arrays = {}
        self._names: set[str] = set()

    def __call__(self) -> Arrays:
        try:
            return self._current()
        except OSError as error:
            gone = error.errno in (errno.ENOENT, errno.ESTALE)
            kind, hint = (
                (DataNotReadyError, "Is it being replaced?") if gone else (DataError, "Check where the data lies.")
            )
            raise kind(f"Cannot read the data {self.path}: {error.strerror or error}.", hint=hint) from error

    def wrong_or_unfinished(self, error: DataError) -> DataError:
        """See the function."""
        if isinstance(error, DataNotReadyError) or self._monotonic() - self._changed >= _SETTLES:
            return error
        hint = "It was written to a moment ago and may be unfinished. Write a new file and rename it over the old one."
        return DataNotReadyError(error.message, hint=hint)

    def _current(self) -> Arrays:
        for _ in range(_ATTEMPTS):
            stamp = self._stamp()
            if stamp == self._seen:
                return self._arrays
            try:
                arrays = _held(self._read(self.path))
            except DataError as error:
                if self._stamp() == stamp:
                    raise self.wrong_or_unfinished(error) from error
                continue
            if self._stamp() == stamp:
                self._check_complete(arrays)
                # No file stays open between tasks: one that was deleted would keep its place on the disk.
                lasting = not any(isinstance(array, FileRows) for array in arrays.values())
                self._arrays, self._seen = (arrays, stamp) if lasting else ({}, None)
                return arrays
        raise changed(self.path)

    def _stamp(self) -> _Stamp:
        files = sorted(self.path.glob("*.npy")) if self.path.is_dir() else [self.path]
        found = [(file, file.stat()) for file in files]
        for file, status in found:
            # To open a pipe waits for whoever writes to it, and a device such as /dev/zero has no end.
            if not stat.S_ISREG(status.st_mode):
                raise DataError(f"Expected a file, got a folder, pipe or device: {file}.", hint="Check --data.")
        stamp = [(file.name, status.st_mtime_ns, status.st_size, status.st_ino) for file, status in found]
        if stamp != self._looked_at:
            self._changed = self._monotonic()
            if self._looked_at is None:
                latest = max((mtime / 1e9 for _, mtime, _, _ in stamp), default=0.0)
                self._changed -= max(0.0, self._clock() - latest)
            self._looked_at = stamp
        return stamp

    def _check_complete(self, arrays: Arrays) -> None:
        """Makes sure that none of a folder's files, which may be missing for a moment, is."""
        if self.path.is_dir() and (missing := sorted(self._names - set(arrays))):
            raise DataNotReadyError(
                f"Expected {missing[0]}.npy in the folder {self.path}, where it was before.",
                hint="Is it being replaced? If it is gone for good, start the device again.",
            )
        self._names = set(arrays)


def _held(found: Mapping[str, NDArray[Any] | _Stored]) -> Arrays:
    """Takes the smallest arrays into memory, as many as there is room for; the others' rows stay in their files."""
    stored = sorted((each.nbytes, name, each) for name, each in found.items() if isinstance(each, _Stored))
    total, held = 0, {}
    for nbytes, name, each in stored:
        total += nbytes
        held[name] = each.rows() if total > _IN_MEMORY and each.has_rows else each.load()
    return {name: each if isinstance(each, np.ndarray) else held[name] for name, each in found.items()}


class _Stored:
    """An array as it lies in a file, behind a header as of an ``.npy``."""

    def __init__(self, file: DataFile, stream: IO[bytes]) -> None:
        version = _npy.read_magic(stream)
        read_header = _npy.read_array_header_1_0 if version == (1, 0) else _npy.read_array_header_2_0
        self.shape, self.fortran_order, self.dtype = read_header(stream)
        if self.dtype.hasobject:
            raise ValueError("an array holds Python objects")
        self.nbytes = math.prod(self.shape) * self.dtype.itemsize
        self._file, self._offset = file, stream.tell()
        if self._offset + self.nbytes > file.size:
            raise EOFError("it ends before its last row")

    @property
    def has_rows(self) -> bool:
        """Whether a row lies in one place: not in Fortran's order."""
        return self.nbytes > 0 and len(self.shape) > 0 and not (self.fortran_order and len(self.shape) > 1)

    def rows(self) -> FileRows:
        """Makes a reader of the array, piece by piece."""
        return FileRows(self._file, self._offset, self.shape, self.dtype)

    def load(self) -> NDArray[Any]:
        """All of it, in C order."""
        result: NDArray[Any] = np.empty(self.shape, self.dtype)
        if self.nbytes == 0:
            return result
        rows, *rest = self.shape or (1,)
        if self.fortran_order and rest:
            columns = FileRows(self._file, self._offset, (math.prod(rest), rows), self.dtype)
            for number, place in enumerate(np.ndindex(*reversed(rest))):
                column = (slice(None), *reversed(place))
                result[column] = columns[number : number + 1][0]
        else:
            result[...] = FileRows(self._file, self._offset, (rows, *rest), self.dtype)[:].reshape(self.shape)
        self._file.check()
        return result


def _read_folder(folder: Path) -> dict[str, NDArray[Any] | _Stored]:
    files = sorted(folder.glob("*.npy"))
    if not files:
        raise DataError(f"Expected files x.npy and y.npy in the folder {folder}, got no .npy file.")
    return {path.stem: _read_npy(path) for path in files}


def _read_npy(path: Path) -> _Stored:
    file = DataFile(path)
    try:
        with file.stream() as stream:
            return _Stored(file, stream)
    except DAMAGED as error:
        raise DataError(f"{path} is not a readable .npy file: {error}.") from error


def _read_npz(path: Path) -> dict[str, NDArray[Any] | _Stored]:
    file = DataFile(path)
    try:
        with file.stream() as stream, zipfile.ZipFile(stream) as archive:
            members = [entry for entry in archive.infolist() if entry.filename.endswith(".npy")]
            return {
                entry.filename.removesuffix(".npy"): _find_member(file, stream, entry)
                if entry.compress_type == zipfile.ZIP_STORED
                else _load_member(archive, entry)
                for entry in members
            }
    except DAMAGED as error:
        raise DataError(
            f"{path} is not a readable .npz file: {error}.", hint="Write it with numpy.savez (without pickled objects)."
        ) from error


def _load_member(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> NDArray[Any]:
    with archive.open(entry) as member:
        array: NDArray[Any] = _npy.read_array(member, allow_pickle=False)
    return array


def _find_member(file: DataFile, stream: IO[bytes], entry: zipfile.ZipInfo) -> _Stored:
    """Finds where an array of an uncompressed archive lies: ``numpy.load`` would copy it into memory."""
    stream.seek(entry.header_offset + 26)
    name_length, extra_length = struct.unpack("<HH", stream.read(4))
    stream.seek(name_length + extra_length, os.SEEK_CUR)
    return _Stored(file, stream)


def _read_csv(path: Path) -> dict[str, NDArray[Any] | _Stored]:
    """Columns by name, and ``x`` and ``y`` as views: the last column, or the one called ``y``, is the target."""
    with path.open(newline="", encoding="utf-8-sig") as file:
        try:
            header = [name.strip() for name in next(csv.reader(file), [])]
            first = next(file, "").strip()
            table = _table(itertools.chain([first], file)) if first else np.empty((0, len(header)))
        except (ValueError, csv.Error) as error:
            raise DataError(
                f"{path} holds something that is not a number: {error}.",
                hint="Every cell below the header must be a number; write classes as 0, 1, 2, …",
            ) from error
    if len(header) < 2 or len(set(header)) != len(header):
        raise DataError(
            f"Expected a header of at least two different column names in {path}, got {','.join(header)!r}."
        )
    if table.shape[1] != len(header):
        raise DataError(f"{path} has {len(header)} column names and {table.shape[1]} columns.")
    return {name: table[:, index] for index, name in enumerate(header)}


def _table(lines: Iterable[str]) -> NDArray[np.float64]:
    return np.loadtxt(lines, np.float64, delimiter=",", quotechar='"', ndmin=2, comments=None)


def _function(name: str) -> Source:
    module_name, _, attribute = name.partition(":")
    # The console script leaves out the current folder, which is where a user's own module is.
    if (here := str(Path.cwd())) not in sys.path:
        sys.path.insert(0, here)
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        raise DataError(
            f"Expected {_KINDS} as data, got {name!r}: {error}.", hint="Run it from the folder that holds the module."
        ) from error
    function = getattr(module, attribute, None)
    if not callable(function):
        raise DataError(f"The module {module_name!r} has no function {attribute!r}.", hint="Check where the data lies.")
    return lambda: _named(function(), name)


def _named(data: Any, origin: str) -> Arrays:
    if isinstance(data, Mapping):
        return {str(name): np.asarray(array) for name, array in data.items()}
    if isinstance(data, (tuple, list)) and len(data) in (2, 3):
        named: dict[str, NDArray[Any]] = {}
        for name, value in zip(("x", "y", "sample_weight"), data, strict=False):
            if isinstance(value, Mapping):
                named |= {str(key): np.asarray(array) for key, array in value.items()}
            elif value is not None:
                named[name] = np.asarray(value)
        return named
    raise DataError(
        f"Expected (x, y), (x, y, sample_weight) or a mapping of names to arrays from {origin}, "
        f"got {type(data).__name__}."
    )
