"""Data in files: ``.npz``, a folder of ``.npy``, CSV, Parquet; what is large is read piece by piece, or mapped."""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from edgefl.damaged_arrays import DAMAGED
from edgefl.errors import DataError
from edgefl_simulation.data.arrays import from_arrays
from edgefl_simulation.data.base import DataSet
from edgefl_simulation.data.csv_tables import read_csv
from edgefl_simulation.data.parquet import read_parquet
from edgefl_simulation.data.spool import ENOUGH, IN_MEMORY, Spool

__all__ = ["KINDS", "from_file"]

KINDS = "an .npz file, a folder of .npy files, a .csv or a .parquet file"
_npy: Any = np.lib.format  # it has no type hints


def from_file(path: Path, owner: str, wanted: Sequence[str]) -> DataSet:
    """Reads a file or a folder.

    Args:
        path: what the user gave.
        owner: the array, or column, that says whose each row is, where there is one of this name.
        wanted: the columns of a table to read beside it; none: all of them.

    Raises:
        DataError: it is none of these, cannot be read, or its arrays differ in their number of rows.
        MissingDependencyError: it is Parquet, and pyarrow is not installed.
        StorageError: there is no room for what does not fit into memory.
    """
    try:
        if not path.exists():
            raise DataError(f"Expected {KINDS} as data, got {str(path)!r}: there is no such file or folder.")
        if path.is_dir():
            return _from_folder(path, owner, wanted)
        kind = path.suffix.lower()
        if kind in (".npz", ".csv", ".parquet") and not path.is_file():
            raise DataError(f"Expected {KINDS} as data, got {str(path)!r}: a pipe or a device.")
        if kind == ".npz":
            return from_arrays(_read_archive(path), owner, str(path))
        if kind == ".csv":
            return read_csv(path, owner, wanted)
        if kind == ".parquet":
            return read_parquet(path, owner, wanted)
    except OSError as error:
        raise DataError(f"Cannot read the data {path}: {error.strerror or error}.") from error
    hint = "Put x.npy and y.npy into a folder, and name that." if kind == ".npy" else None
    raise DataError(f"Expected {KINDS} as data, got {str(path)!r}: a file of another kind.", hint=hint)


def _from_folder(folder: Path, owner: str, wanted: Sequence[str]) -> DataSet:
    files = sorted(folder.glob("*.npy"))
    if not files and any(folder.glob("*.parquet")):
        return read_parquet(folder, owner, wanted)
    if not files:
        raise DataError(f"Expected files x.npy and y.npy in the folder {folder}, got no .npy file.")
    arrays: dict[str, NDArray[Any]] = {}
    for file in files:
        if not file.is_file():
            raise DataError(f"Expected a file, got a folder, pipe or device: {file}.")
        try:
            # Mapped: a folder may hold more than memory does. A map that knows of its file is slow: a plain array.
            arrays[file.stem] = np.asarray(np.load(file, mmap_mode="r", allow_pickle=False)).view(np.ndarray)
        except DAMAGED as error:
            raise DataError(
                f"{file} is not a readable .npy file: {str(error).rstrip('.')}.", hint="Write it with numpy.save."
            ) from error
    return from_arrays(arrays, owner, str(folder))


def _read_archive(path: Path) -> dict[str, NDArray[Any]]:
    arrays: dict[str, NDArray[Any]] = {}
    try:
        with zipfile.ZipFile(path) as archive:
            for entry in archive.infolist():
                name = entry.filename.removesuffix(".npy")
                if name in arrays:
                    raise DataError(f"Expected arrays with different names in {path}, got {name!r:.80} twice.")
                with archive.open(entry) as member:
                    arrays[name] = _read_member(member, entry.file_size)
    except DAMAGED as error:
        raise DataError(
            f"{path} is not a readable .npz file: {str(error).rstrip('.')}.",
            hint="Write it with numpy.savez, without Python objects.",
        ) from error
    return arrays


def _read_member(member: IO[bytes], size: int) -> NDArray[Any]:
    """An array of an archive; a large one passes through memory piece by piece."""
    if size <= IN_MEMORY:
        found: NDArray[Any] = _npy.read_array(member, allow_pickle=False)
        return found
    version = _npy.read_magic(member)
    read_header = _npy.read_array_header_1_0 if version == (1, 0) else _npy.read_array_header_2_0
    shape, fortran_order, dtype = read_header(member)
    if dtype.hasobject:
        raise ValueError("an array holds Python objects")
    if not shape or not dtype.itemsize or 0 in shape:
        return np.empty(shape, dtype)
    # In Fortran's order it is the transposed array that lies row by row.
    shape = shape[::-1] if fortran_order else shape
    width = int(np.prod(shape[1:], dtype=np.int64)) * dtype.itemsize
    spool, step = Spool(), max(1, ENOUGH // width)
    for start in range(0, shape[0], step):
        count = min(step, shape[0] - start)
        content = member.read(count * width)
        if len(content) < count * width:
            raise EOFError("it ends before its last row")
        spool.add(np.frombuffer(content, dtype).reshape(count, *shape[1:]))
    found = spool.array()
    return found.T if fortran_order else found
