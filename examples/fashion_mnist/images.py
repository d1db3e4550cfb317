"""Fashion-MNIST (Xiao et al. 2017), and how it falls on devices."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edgefl.errors import DataError
from edgefl_simulation.data.fashion_mnist import DEBIAN_FOLDER, read_idx
from edgefl_simulation.data.fashion_mnist import Images as Examples
from edgefl_simulation.data.fashion_mnist import load_images as load

__all__ = ["CLASSES", "DEBIAN_FOLDER", "Examples", "load", "partition_by_dirichlet", "read_idx"]

CLASSES = 10


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
