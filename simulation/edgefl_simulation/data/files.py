"""Data in files: ``.npz``, a folder of ``.npy``, CSV; an array of owners among the others says whose each row is."""

from __future__ import annotations

import csv
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgefl.errors import DataError
from edgefl_simulation.data.base import DataSet

__all__ = ["from_arrays", "from_file"]

_KINDS = "an .npz file, a folder of .npy files or a .csv file"


def from_file(path: Path, owner: str) -> DataSet:
    """Reads a file or a folder.

    Args:
        path: what the user gave.
        owner: the array, or column, that says whose each row is, where there is one of this name.

    Raises:
        DataError: it is none of these, cannot be read, or its arrays differ in their number of rows.
    """
    if not path.exists():
        raise DataError(f"Expected {_KINDS} as data, got {str(path)!r}: there is no such file or folder.")
    try:
        if path.is_dir():
            return from_arrays(_read_folder(path), owner, str(path))
        if path.suffix.lower() == ".npz":
            with np.load(path, allow_pickle=False) as archive:
                return from_arrays({name: archive[name] for name in archive.files}, owner, str(path))
        if path.suffix.lower() == ".csv":
            return from_arrays(_read_csv(path, owner), owner, str(path))
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise DataError(f"Cannot read the data {path}: {error}.", hint=f"Expected {_KINDS}.") from error
    raise DataError(f"Expected {_KINDS} as data, got {str(path)!r}: a file of another kind.")


def from_arrays(arrays: Mapping[str, NDArray[Any]], owner: str, origin: str) -> DataSet:
    """Takes arrays by name, those called ``test_…`` as rows that are held out.

    Args:
        arrays: of equal length, but for those that are held out.
        owner: see `from_file`.
        origin: what the user calls them.

    Raises:
        DataError: they differ in their number of rows, or there are none.
    """
    held_out = {name[5:]: np.asarray(array) for name, array in arrays.items() if name.startswith("test_")}
    own = {name: np.asarray(array) for name, array in arrays.items() if not name.startswith("test_")}
    owners = own.pop(owner, None)
    for group in (own if owners is None else {**own, owner: owners}, held_out):
        lengths = {name: len(array) if array.ndim else 0 for name, array in group.items()}
        if len(set(lengths.values())) > 1:
            raise DataError(f"Expected arrays with equal numbers of rows in {origin}, got {lengths}.")
    if not own or not len(next(iter(own.values()))):
        raise DataError(f"Expected arrays x and y with rows in {origin}, got none.")
    return DataSet(own, owners, held_out)


def _read_folder(folder: Path) -> dict[str, NDArray[Any]]:
    # Mapped: a folder may hold more than memory does.
    found = {path.stem: np.load(path, mmap_mode="r", allow_pickle=False) for path in sorted(folder.glob("*.npy"))}
    if not found:
        raise DataError(f"Expected files x.npy and y.npy in the folder {folder}, got no .npy file.")
    return found


def _read_csv(path: Path, owner: str) -> dict[str, NDArray[Any]]:
    """Columns by name; owners may be words, all else is numbers."""
    with path.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.reader(file)
        header = [name.strip() for name in next(reader, [])]
        lines = [line for line in reader if line]
    if len(header) < 2 or len(set(header)) != len(header):
        raise DataError(f"Expected a header of at least two different names in {path}, got {','.join(header)!r:.80}.")
    for number, line in enumerate(lines, 2):
        if len(line) != len(header):
            raise DataError(f"Line {number} of {path} has {len(line)} cells, the header {len(header)} names.")
    columns: dict[str, NDArray[Any]] = {}
    for place, name in enumerate(header):
        cells = [line[place] for line in lines]
        try:
            columns[name] = np.array(cells) if name == owner else np.array(cells, np.float64)
        except ValueError as error:
            raise DataError(
                f"The column {name!r} of {path} holds something that is not a number: {error}.",
                hint=f"Write classes as 0, 1, 2, …; the column that says whose a row is is called {owner!r}.",
            ) from error
    return columns
