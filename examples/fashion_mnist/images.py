"""Fashion-MNIST (Xiao et al. 2017), and how it falls on devices."""

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

__all__ = ["CLASSES", "DEBIAN_FOLDER", "Examples", "load", "partition_by_dirichlet", "read_idx"]

CLASSES = 10
DEBIAN_FOLDER = Path("/usr/share/datasets/fashion-mnist")
"""Where Debian's package dataset-fashion-mnist puts the files."""

Examples = tuple[NDArray[np.float32], NDArray[np.int32]]
"""Images of shape ``[rows, 28, 28, 1]`` from 0 to 1, and their classes, shape ``[rows]``."""

_HINT = "Install Debian's package dataset-fashion-mnist, or name the folder with the four .gz files: --data DIR."
_UINT8 = 0x08


def load(folder: Path, part: str) -> Examples:
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
    return (images[..., np.newaxis] / np.float32(255)).astype(np.float32), labels.astype(np.int32)


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


def partition_by_dirichlet(
    labels: NDArray[np.int32], devices: int, rows: int, alpha: float, seed: int
) -> list[NDArray[np.int64]]:
    """Gives each device rows of its own, with a class mixture of its own.

    The mixtures are drawn from a Dirichlet distribution, as in Hsu et al. 2019 (Measuring the Effects of Non-Identical
    Data Distribution for Federated Visual Classification); a class that has run out is left out of the mixture.

    Args:
        labels: of all examples, shape ``[examples]``.
        devices: how many.
        rows: for each.
        alpha: the smaller, the less alike the devices; infinity would be uniform.
        seed: of the mixtures and the choice of rows.

    Returns:
        Disjoint sorted indices into `labels`, shape ``[rows]`` for each device.

    Raises:
        DataError: there are not enough examples.
    """
    if devices * rows > len(labels):
        raise DataError(f"{devices} devices of {rows} rows need {devices * rows} examples, got {len(labels)}.")
    random = np.random.default_rng(seed)
    left = [list(random.permutation(np.flatnonzero(labels == kind))) for kind in range(CLASSES)]
    parts = []
    for mixture in random.dirichlet(np.full(CLASSES, alpha), devices):
        chosen: list[int] = []
        while len(chosen) < rows:
            wanted = mixture * [bool(kind) for kind in left]
            if not wanted.sum() > 0:
                wanted = np.array([len(kind) for kind in left], np.float64)
            counts = random.multinomial(rows - len(chosen), wanted / wanted.sum())
            for kind, count in zip(left, counts, strict=True):
                chosen += kind[:count]
                del kind[:count]
        parts.append(np.sort(np.array(chosen, np.int64)))
    return parts
