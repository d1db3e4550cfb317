"""Fashion-MNIST (Xiao et al. 2017): 60,000 images of 28 × 28 pixels and 10,000 for tests, from Debian's package."""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgefl.errors import DataError
from edgefl_simulation.data.base import DataSet

__all__ = ["DEBIAN_FOLDER", "Images", "load", "load_images", "read_idx"]

DEBIAN_FOLDER = Path("/usr/share/datasets/fashion-mnist")
"""Debian's package dataset-fashion-mnist puts the files there."""

Images = tuple[NDArray[np.float32], NDArray[np.int32]]
"""Images of shape ``[rows, 28, 28, 1]`` from 0 to 1, and their classes, shape ``[rows]``."""

_HINT = "Install Debian's package dataset-fashion-mnist, or name the folder with the four .gz files."
_UINT8 = 0x08


def load(folder: Path = DEBIAN_FOLDER) -> DataSet:
    """Reads all of it.

    Raises:
        DataError: a file is missing or damaged.
    """
    (x, y), (test_x, test_y) = load_images(folder, "train"), load_images(folder, "t10k")
    return DataSet({"x": x, "y": y}, held_out={"x": test_x, "y": test_y}, reshapes=True)


def load_images(folder: Path, part: str) -> Images:
    """Reads the images and labels of a part.

    Args:
        folder: with the four files of the data set.
        part: ``train`` (60,000 images) or ``t10k`` (10,000 for testing).

    Raises:
        DataError: a file is missing or damaged.
    """
    images = read_idx(folder / f"{part}-images-idx3-ubyte.gz")
    labels = read_idx(folder / f"{part}-labels-idx1-ubyte.gz")
    if images.shape[1:] != (28, 28) or labels.shape != images.shape[:1]:
        raise DataError(f"Expected images of 28 × 28 and one label each in {folder}, got {images.shape}.", hint=_HINT)
    return (images[..., np.newaxis] / np.float32(255)).astype(np.float32, copy=False), labels.astype(np.int32)


def read_idx(path: Path) -> NDArray[np.uint8]:
    """Reads a gzipped IDX file of bytes: two zeros, the type, the number of dimensions, the dimensions, the data.

    Raises:
        DataError: it is missing or is not such a file.
    """
    try:
        content = gzip.decompress(path.read_bytes())
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"Cannot read {path}: {error}.", hint=_HINT) from error
    if len(content) < 4 or content[:3] != bytes((0, 0, _UINT8)):
        raise DataError(f"{path} is not an IDX file of bytes.", hint=_HINT)
    start = 4 + 4 * content[3]
    shape: tuple[Any, ...] = struct.unpack(f">{content[3]}I", content[4:start].ljust(4 * content[3], b"\0"))
    if len(content) != start + math.prod(shape):
        raise DataError(f"{path} should hold {math.prod(shape)} bytes of data, got {len(content) - start}.", hint=_HINT)
    return np.frombuffer(content, np.uint8, offset=start).reshape(shape)
