"""The codecs ``float32`` and ``float16``: little-endian IEEE 754 of a fixed width, rounding to nearest even."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edgefl.codecs.base import Codec, expect_bytes, register

__all__ = ["FLOAT16", "FLOAT32"]


def _fixed_width(name: str, dtype: str) -> Codec:
    wire = np.dtype(dtype)
    largest = float(np.finfo(wire).max)
    whole = wire.itemsize == 4

    def encode(vector: NDArray[np.float32], seed: int) -> bytes:
        if whole:
            return vector.astype(wire, copy=False).tobytes()
        # A finite value beyond the type's range must not become infinite on the way.
        finite = np.where(np.isfinite(vector), np.clip(vector, -largest, largest), vector)
        return finite.astype(wire).tobytes()

    def decode(data: bytes | memoryview, size: int, seed: int) -> NDArray[np.float32]:
        expect_bytes(name, data, size * wire.itemsize, size)
        return np.frombuffer(data, wire).astype(np.float32, copy=False)

    return Codec(name, encode, decode, unbiased=whole, exact=True, contractive=True, sections=())


FLOAT16 = register(_fixed_width("float16", "<f2"))
FLOAT32 = register(_fixed_width("float32", "<f4"))
