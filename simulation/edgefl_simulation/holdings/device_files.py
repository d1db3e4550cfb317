"""Writes a file for each device, as ``edgefl device run`` takes it, so that real devices hold the same partition."""

from __future__ import annotations

import io
import json
import secrets
import shutil
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgefl.errors import InvalidSettingError, storage_error

__all__ = ["HELD_OUT", "PARTITION", "write_files"]

HELD_OUT, PARTITION = "held_out.npz", "partition.json"
_PIECE = 16 << 20
"""Bytes that are gathered at a time."""
_npy: Any = np.lib.format  # it has no type hints


def write_files(
    folder: Path,
    names: Sequence[str],
    parts: Sequence[NDArray[np.intp]],
    arrays: Mapping[str, NDArray[Any]],
    tests: tuple[Mapping[str, NDArray[Any]], NDArray[np.intp]] | None,
    about: Mapping[str, Any],
) -> None:
    """Writes ``NAME.npz`` for each device, `HELD_OUT` with the rows of none, and `PARTITION`, or nothing at all.

    Args:
        folder: must be new, or empty.
        names: the devices' ids.
        parts: their rows.
        arrays: ``[examples, …]`` each; they may be mapped, and larger than memory.
        tests: arrays and which of their rows no device holds; None: there are none.
        about: what `PARTITION` says, plain values.

    Raises:
        InvalidSettingError: the folder holds something already.
        StorageError: it cannot be written.
    """
    if Path(HELD_OUT).stem in names:
        raise InvalidSettingError(f"A device is called {Path(HELD_OUT).stem}, as the file with the rows of none.")
    try:
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise InvalidSettingError(f"{folder} is not an empty folder.", hint="Choose another one for the files.")
        made = folder.parent / f".{folder.name}.{secrets.token_hex(8)}.part"
        made.mkdir(parents=True)
        try:
            for name, part in zip(names, parts, strict=True):
                _write(made / f"{name}.npz", arrays, part)
            if tests is not None:
                _write(made / HELD_OUT, *tests)
            (made / PARTITION).write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")
            made.replace(folder)  # also over an empty folder
        except BaseException:
            shutil.rmtree(made, ignore_errors=True)
            raise
    except OSError as error:
        raise storage_error(error, "write", folder) from error


def _write(path: Path, arrays: Mapping[str, NDArray[Any]], rows: NDArray[np.intp]) -> None:
    """Writes chosen rows as numpy.savez does, uncompressed: devices then read rows where they lie in the file."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for name, array in arrays.items():
            header = io.BytesIO()
            described = {
                "descr": _npy.dtype_to_descr(array.dtype),
                "fortran_order": False,
                "shape": (len(rows), *array.shape[1:]),
            }
            _npy.write_array_header_1_0(header, described)
            step = max(1, _PIECE // max(1, array.nbytes // max(1, len(array))))
            # The same bytes at any time of day.
            entry = zipfile.ZipInfo(f"{name}.npy", (1980, 1, 1, 0, 0, 0))
            with archive.open(entry, "w", force_zip64=True) as member:
                member.write(header.getvalue())
                for start in range(0, len(rows), step):
                    member.write(np.ascontiguousarray(array[rows[start : start + step]]).data)
