"""A codec of one byte a number, with a scale in front, as somebody outside of edgefl would write it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edgefl.codecs import Codec
from edgefl.errors import CodecError


def encode(vector: NDArray[np.float32], seed: int) -> bytes:
    scale = np.float32(np.abs(vector).max(initial=0.0) / 127 or 1.0)
    return np.array([scale], "<f4").tobytes() + np.rint(vector / scale).astype(np.int8).tobytes()


def decode(data: bytes | memoryview, size: int, seed: int) -> NDArray[np.float32]:
    if len(data) != 4 + size:
        raise CodecError(f"Codec 'byte' expects {4 + size} bytes for {size} elements, got {len(data)}.")
    return np.frombuffer(data, np.int8, offset=4) * np.frombuffer(data, "<f4", 1)[0]


BYTE = Codec("byte", encode, decode)
