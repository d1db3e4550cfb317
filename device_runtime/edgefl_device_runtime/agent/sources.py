"""Where local data comes from: .npz, a folder of .npy, CSV, a Python function, or arrays."""

from __future__ import annotations

import csv
import importlib
import itertools
import os
import struct
import sys
import zipfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from edgefl.errors import DataError

__all__ = ["Arrays", "Source", "open_source"]

Arrays = Mapping[str, NDArray[Any]]
"""Arrays by name: ``x``, ``y`` and ``sample_weight``, or the names of the model's inputs and targets."""

Source = Callable[[], Arrays]
"""Gives the data as it is now. A task asks once, so data may be added between tasks."""

_npy: Any = np.lib.format  # it has no type hints
_KINDS = "an .npz file, a folder of .npy files, a .csv file, or module:function"


def open_source(data: Any) -> Source:
    """Finds out what kind of source is meant, and that it can be read.

    Args:
        data: a path, ``module:function``, a function, a pair ``(x, y)``, a triple ``(x, y, sample_weight)``, or a
            mapping of names to arrays. A function is called at the start of every task and returns one of the latter.

    Raises:
        DataError: it is none of these, or is not there.
    """
    if callable(data):
        return lambda: _named(data(), "the function")
    if not isinstance(data, (str, os.PathLike)):
        arrays = _named(data, "the data")
        return lambda: arrays
    path = Path(data)
    if path.is_dir():
        return _Files(path, _read_folder)
    if path.suffix == ".npz" and path.exists():
        return _Files(path, _read_npz)
    if path.suffix.lower() == ".csv" and path.exists():
        return _Files(path, _read_csv)
    if path.suffix.lower() in (".npz", ".csv") or path.exists() or ":" not in str(data):
        found = "a file of another kind" if path.exists() else "no such file or folder"
        raise DataError(f"Expected {_KINDS} as data, got {str(data)!r}: {found}.", hint="Check --data.")
    return _function(str(data))


class _Files:
    """Reads files again only when they have changed."""

    def __init__(self, path: Path, read: Callable[[Path], Arrays]) -> None:
        self.path = path
        self._read = read
        self._seen: object = None
        self._arrays: Arrays = {}

    def __call__(self) -> Arrays:
        try:
            seen = self._stamp()
            if seen != self._seen:
                self._arrays = self._read(self.path)
                self._seen = seen
        except OSError as error:
            raise DataError(
                f"Cannot read the data {self.path}: {error.strerror or error}.", hint="Check --data."
            ) from error
        return self._arrays

    def _stamp(self) -> list[tuple[str, int, int]]:
        files = sorted(self.path.glob("*.npy")) if self.path.is_dir() else [self.path]
        return [(file.name, stat.st_mtime_ns, stat.st_size) for file in files for stat in [file.stat()]]


def _read_folder(folder: Path) -> Arrays:
    files = sorted(folder.glob("*.npy"))
    if not files:
        raise DataError(f"Expected files x.npy and y.npy in the folder {folder}, got no .npy file.")
    return {file.stem: _load_npy(file) for file in files}


def _load_npy(file: Path) -> NDArray[Any]:
    try:
        array: NDArray[Any] = np.load(file, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise DataError(f"{file} is not a readable .npy file: {error}.") from error
    return array


def _read_npz(path: Path) -> Arrays:
    try:
        with zipfile.ZipFile(path) as archive, path.open("rb") as file:
            members = [entry for entry in archive.infolist() if entry.filename.endswith(".npy")]
            return {
                entry.filename.removesuffix(".npy"): _map_member(path, file, entry)
                if entry.compress_type == zipfile.ZIP_STORED
                else _load_member(archive, entry)
                for entry in members
            }
    except (zipfile.BadZipFile, ValueError, EOFError, struct.error) as error:
        raise DataError(
            f"{path} is not a readable .npz file: {error}.", hint="Write it with numpy.savez (without pickled objects)."
        ) from error


def _load_member(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> NDArray[Any]:
    with archive.open(entry) as member:
        array: NDArray[Any] = _npy.read_array(member, allow_pickle=False)
    return array


def _map_member(path: Path, file: IO[bytes], entry: zipfile.ZipInfo) -> NDArray[Any]:
    """Maps an array of an uncompressed archive: ``numpy.load`` would copy it into memory."""
    file.seek(entry.header_offset + 26)
    name_length, extra_length = struct.unpack("<HH", file.read(4))
    file.seek(name_length + extra_length, os.SEEK_CUR)
    version = _npy.read_magic(file)
    read_header = _npy.read_array_header_1_0 if version == (1, 0) else _npy.read_array_header_2_0
    shape, fortran_order, dtype = read_header(file)
    if dtype.hasobject:
        raise ValueError("an array holds Python objects")
    if 0 in shape:
        return np.empty(shape, dtype)
    order = "F" if fortran_order else "C"
    return np.memmap(path, dtype, "r", file.tell(), shape, order)  # type: ignore[call-overload, no-any-return]


def _read_csv(path: Path) -> Arrays:
    """Columns by name, and ``x`` and ``y`` as views: the last column, or the one called ``y``, is the target."""
    with path.open(newline="", encoding="utf-8-sig") as file:
        try:
            header = [name.strip() for name in next(csv.reader(file), [])]
            first = next(file, "").strip()
            table = _table(itertools.chain([first], file)) if first else np.empty((0, len(header)))
        except (ValueError, UnicodeDecodeError) as error:
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
        raise DataError(f"The module {module_name!r} has no function {attribute!r}.", hint="Check --data.")
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
