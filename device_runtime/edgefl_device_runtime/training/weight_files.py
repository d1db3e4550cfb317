"""Weights in a file: a `.npz` with one array for each parameter, under its name."""

from __future__ import annotations

import io
import os
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from edgefl.atomic import write_bytes
from edgefl.errors import DataError, InvalidSettingError, storage_error

__all__ = ["read_weights", "write_weights"]


def write_weights(path: str | os.PathLike[str], arrays: Mapping[str, ArrayLike], *, overwrite: bool = True) -> None:
    """Writes named arrays, all of them or none.

    Raises:
        InvalidSettingError: the name does not end in ``.npz``, or the file is there and shall not be replaced.
        StorageError: the file cannot be written.
    """
    file = _checked(path)
    if file.exists() and not overwrite:
        raise InvalidSettingError(f"{file} is there already.", hint="Choose another name, or `overwrite=True`.")
    buffer = io.BytesIO()
    np.savez(buffer, **{name: np.asarray(array) for name, array in arrays.items()})
    try:
        write_bytes(file, buffer.getvalue())
    except OSError as error:
        raise storage_error(error, "write", file) from error


def read_weights(path: str | os.PathLike[str]) -> dict[str, NDArray[Any]]:
    """Reads what `write_weights` wrote.

    Raises:
        InvalidSettingError: the name does not end in ``.npz``.
        StorageError: the file cannot be read.
        DataError: it is no such file.
    """
    file = _checked(path)
    try:
        with np.load(file, allow_pickle=False) as found:
            return dict(found)
    except OSError as error:
        raise storage_error(error, "read", file) from error
    except (ValueError, EOFError, KeyError, zipfile.BadZipFile) as error:
        raise DataError(f"{file} is not a file of weights.", hint="Make one with `save_weights`.") from error


def _checked(path: str | os.PathLike[str]) -> Path:
    file = Path(path)
    if file.suffix != ".npz":
        raise InvalidSettingError(
            f"Weights are kept in a .npz file, got {str(path)!r}.",
            hint="Keras's own formats need the Keras model: `edgefl export MODEL.tflite --weights WEIGHTS.npz -o "
            "MODEL.keras` makes one.",
        )
    return file
