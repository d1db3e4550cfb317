"""The codec ``int8``: a byte an element, rounded up or down at random so that the mean is right, in blocks.

Stochastic uniform quantization as in Alistarh et al. 2017, "QSGD", section 3, with the largest element of a block as
its scale and 127 levels to each side. The bytes are the step of each block, float32, then the elements.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edgefl.codecs.base import Codec, expect_bytes, register
from edgefl.codecs.randomness import Draws, Purpose

__all__ = ["INT8"]

_BLOCK = 4096
_LEVELS = 127


def _encode(vector: NDArray[np.float32], seed: int) -> bytes:
    draws = Draws(seed, Purpose.ROUNDING)
    steps = np.zeros(-(-vector.size // _BLOCK), "<f4")
    levels = np.zeros(vector.size, np.int8)
    for block, start in enumerate(range(0, vector.size, _BLOCK)):
        part = vector[start : start + _BLOCK]
        step = np.float32(max(float(part.max()), -float(part.min())) / _LEVELS)
        chance = draws.uniform(part.size)
        steps[block] = step
        if step > 0:  # a block of zeros, or of what is too small to be divided by
            found = np.floor(part / step + chance)
            levels[start : start + _BLOCK] = np.clip(found, -_LEVELS, _LEVELS)
    return steps.tobytes() + levels.tobytes()


def _decode(data: bytes | memoryview, size: int, seed: int) -> NDArray[np.float32]:
    blocks = -(-size // _BLOCK)
    expect_bytes("int8", data, 4 * blocks + size, size)
    steps = np.frombuffer(data, "<f4", blocks)
    vector = np.frombuffer(data, np.int8, offset=4 * blocks).astype(np.float32)
    with np.errstate(all="ignore"):  # what is not finite is noticed by whoever folds
        for block, start in enumerate(range(0, size, _BLOCK)):
            vector[start : start + _BLOCK] *= steps[block]
    return vector


INT8 = register(Codec("int8", _encode, _decode, unbiased=True, contractive=True))
