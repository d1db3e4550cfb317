"""Storing frozen weights in fewer bytes: as int8 or float16, made float32 again by DEQUANTIZE when a model is loaded.

Only storage changes. A runtime computes DEQUANTIZE of a constant once and keeps the result, and its fast kernels take
that for the constant that it is, so that a step takes as long as before. Int8 is symmetric, with a scale for each index
of one axis (Jacob et al. 2018, Krishnamoorthi 2018, section 3.1). With `DYNAMIC` products are computed in int8 as well
(`passes.int8_products`).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["DYNAMIC", "FORMATS", "LEAST_ELEMENTS", "StoredConstant", "quantized_rows", "store"]

DYNAMIC = "int8-dynamic"
"""Weights in int8, and what they are multiplied with rounded to 8 bits in every step."""
FORMATS = ("float16", "int8", DYNAMIC)
LEAST_ELEMENTS = 1024
"""Smaller constants (biases, statistics) are not worth an op, and matter more than their size."""
_LARGEST_INT8 = 127.0
_LEAST_PER_SCALE = 16
"""Numbers that share a scale, which takes 12 bytes with its zero point."""


@dataclass(frozen=True)
class StoredConstant:
    """A constant in fewer bytes.

    Attributes:
        values: float16 or int8, of the original shape.
        scales: for int8, one for each index of the axis, or a single one; float32. Empty for float16.
        axis: of the scales.
    """

    values: NDArray[np.generic]
    scales: NDArray[np.float32]
    axis: int

    def restored(self) -> NDArray[np.float32]:
        """Returns what DEQUANTIZE computes."""
        if not self.scales.size:
            return self.values.astype(np.float32)
        return (self.values.astype(np.float32) * _along(self.scales, self.axis, self.values.ndim)).astype(np.float32)


def store(constant: NDArray[np.float32], storage: str) -> StoredConstant | None:
    """Stores a constant in another format.

    Args:
        constant: float32 of any shape.
        storage: ``float16`` or ``int8``.

    Returns:
        The stored constant, or None where it is better left as it is: small, a vector, or beyond the range of float16.
    """
    if constant.size < LEAST_ELEMENTS or constant.ndim < 2 or not np.isfinite(constant).all():
        return None
    if storage == "float16":
        if np.max(np.abs(constant)) > np.finfo(np.float16).max:
            return None
        return StoredConstant(constant.astype(np.float16), np.empty(0, np.float32), 0)
    axes = [axis for axis, size in enumerate(constant.shape) if constant.size >= _LEAST_PER_SCALE * size]
    tried = [_int8(constant, axis) for axis in axes] or [_int8(constant, None)]
    return min(tried, key=lambda each: float(np.square(each.restored() - constant, dtype=np.float64).sum()))


def quantized_rows(matrix: NDArray[np.float32]) -> StoredConstant:
    """Stores a finite matrix as int8 with a scale for each row."""
    return _int8(matrix, 0)


def _int8(constant: NDArray[np.float32], axis: int | None) -> StoredConstant:
    others = tuple(each for each in range(constant.ndim) if each != axis)
    largest = np.abs(constant).max(axis=others if axis is not None else None)
    # Not below the smallest normal number: a scale that rounds to zero would make everything infinite.
    scales = np.atleast_1d(np.maximum(largest / _LARGEST_INT8, np.finfo(np.float32).tiny)).astype(np.float32)
    rounded = np.rint(constant / _along(scales, axis or 0, constant.ndim))
    return StoredConstant(np.clip(rounded, -_LARGEST_INT8, _LARGEST_INT8).astype(np.int8), scales, axis or 0)


def _along(scales: NDArray[np.float32], axis: int, rank: int) -> NDArray[np.float32]:
    return scales.reshape([-1 if each == axis else 1 for each in range(rank)])
