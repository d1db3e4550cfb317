"""Handwritten digits, 1,797 of 8 × 8 pixels, from scikit-learn (Alpaydin and Kaynak 1998); not a line of it is run."""

from __future__ import annotations

import gzip
import zlib

import numpy as np

from edgefl.errors import DataError
from edgefl_simulation.data.base import DataSet
from edgefl_simulation.data.package_files import package_folder

__all__ = ["load"]

_ROWS, _PIXELS, _LARGEST = 1797, 64, 16


def load() -> DataSet:
    """Reads the images, ``x`` float32 ``[1797, 8, 8, 1]`` from 0 to 1, and their digits, ``y``.

    Raises:
        DataError: scikit-learn is not installed, or its file is damaged.
    """
    folder = package_folder(
        "sklearn",
        "The digits are part of the package scikit-learn, which is not installed.",
        "Install it: pip install scikit-learn",
    )
    path = folder / "datasets" / "data" / "digits.csv.gz"
    try:
        lines = gzip.decompress(path.read_bytes()).decode().splitlines()
        table = np.loadtxt(lines, np.float32, delimiter=",")
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise DataError(f"Cannot read the digits {path}: {error}.", hint="Install scikit-learn again.") from error
    if table.shape != (_ROWS, _PIXELS + 1):
        raise DataError(f"Expected {_ROWS} rows of {_PIXELS + 1} numbers in {path}, got {table.shape}.")
    images = (table[:, :_PIXELS] / _LARGEST).reshape(-1, 8, 8, 1)
    return DataSet({"x": images, "y": table[:, _PIXELS].astype(np.int32)}, reshapes=True)
