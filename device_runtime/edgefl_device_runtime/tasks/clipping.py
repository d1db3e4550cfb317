"""Bounds how far one outcome can move the weights."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

__all__ = ["clipped"]

Vector = NDArray[np.float32]


def clipped(vector: Vector, bound: float) -> Vector:
    """Scales a vector so that its L2 norm is at most ``bound``; 0 stands for no bound."""
    if bound <= 0:
        return vector
    # numpy's own pairwise sum: that of a BLAS may depend on its number of threads.
    norm = math.sqrt(float(np.sum(np.square(vector, dtype=np.float64))))
    if not norm > bound:
        return vector
    scaled: Vector = (vector * (bound / norm)).astype(np.float32)
    return scaled
