"""Rows of data in files that all workers map into memory: nothing is copied to them.

A table is a folder with an ``.npy`` for each array. The rows of one device lie together, so that they are a view.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgefl.errors import DataError, storage_error

__all__ = ["DEVICES", "HELD_OUT", "Rows", "Tables", "write_table"]

DEVICES, HELD_OUT = "devices", "held_out"
_FORMAT: Any = np.lib.format
_PIECE = 16 << 20
"""Bytes that are gathered at a time when a table is written."""
_AROUND = 1 << 20
"""Linux maps more than the page that is asked for (64 KiB, and more where a file lies in large folios): other devices'
rows, of which nothing is left mapped when so many bytes on either side are let go of, too."""
_SMALL = 8 << 20
"""Bytes of a mapped array up to which its pages stay mapped: to fault them in again would only cost time."""


@dataclass(frozen=True)
class Rows:
    """Consecutive rows of a table: one device's, or a piece of those that are held out.

    Attributes:
        table: its folder's name.
        start: the first one.
        stop: the one after the last.
    """

    table: str
    start: int
    stop: int

    def __len__(self) -> int:
        return self.stop - self.start


def write_table(folder: Path, arrays: Mapping[str, tuple[NDArray[Any], np.dtype[Any]]], rows: NDArray[np.intp]) -> None:
    """Writes chosen rows of arrays in the order given.

    Args:
        folder: is made.
        arrays: by name, ``[examples, …]`` each, with the type in which it is written; they may be mapped files, and
            larger than memory.
        rows: which of them, ``[rows]``, at least one.

    Raises:
        StorageError: it cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, (array, dtype) in arrays.items():
            shape = (len(rows), *array.shape[1:])
            header = {"descr": _FORMAT.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
            at_once = max(1, _PIECE // max(1, array.nbytes // max(1, len(array))))
            # Written, not mapped: pages of a mapped file would be this process's memory until they are on the disk.
            with (folder / f"{name}.npy").open("wb") as file:
                _FORMAT.write_array_header_1_0(file, header)
                for start in range(0, len(rows), at_once):
                    piece = array[rows[start : start + at_once]].astype(dtype, copy=False)
                    file.write(np.ascontiguousarray(piece).data)
    except OSError as error:
        raise storage_error(error, "write", folder) from error


class Tables:
    """The tables of a folder, mapped.

    Args:
        folder: with a folder for each table.

    Raises:
        DataError: a file is missing or damaged.
    """

    def __init__(self, folder: Path) -> None:
        self._arrays: dict[str, dict[str, NDArray[Any]]] = {}
        self._maps: dict[str, list[tuple[mmap.mmap, int, int]]] = {}
        for table in sorted(each for each in folder.iterdir() if each.is_dir()):
            self._arrays[table.name] = {}
            self._maps[table.name] = []
            for file in sorted(table.glob("*.npy")):
                self._open(table.name, file)

    def names(self) -> Iterable[str]:
        """The tables that there are."""
        return self._arrays.keys()

    def read(self, rows: Rows) -> dict[str, NDArray[Any]]:
        """Rows of a table as views, by the array's name."""
        return {name: array[rows.start : rows.stop] for name, array in self._arrays[rows.table].items()}

    def release(self, rows: Rows) -> None:
        """Lets go of the pages of these rows: they stay in the system's cache, and are nobody's memory."""
        for mapped, offset, width in self._maps[rows.table]:
            begin = max(0, (offset + rows.start * width) // mmap.PAGESIZE * mmap.PAGESIZE - _AROUND)
            end = min(-(-(offset + rows.stop * width) // mmap.PAGESIZE) * mmap.PAGESIZE + _AROUND, len(mapped))
            mapped.madvise(mmap.MADV_DONTNEED, begin, end - begin)

    def _open(self, table: str, file: Path) -> None:
        try:
            found = np.load(file, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError) as error:
            raise DataError(f"Cannot read the table {file}: {error}.") from error
        # A plain array: one that knows of its file is slow to cut.
        self._arrays[table][file.stem] = np.asarray(found).view(np.ndarray)
        mapped = getattr(found, "_mmap", None)
        if mapped is not None and found.nbytes > _SMALL:
            offset = found.offset % mmap.ALLOCATIONGRANULARITY
            self._maps[table].append((mapped, offset, found.nbytes // max(1, len(found))))
