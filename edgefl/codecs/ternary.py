"""The codecs ``stc`` and ``stc-0.04``: the largest elements, each as plus or minus their mean; with a memory.

Sparse ternary compression of Sattler et al. 2019, "Robust and Communication-Efficient Federated Learning from Non-IID
Data", Algorithms 1 and 3: of n elements the k largest in size, their mean size, their signs, and their places as
Golomb-coded gaps. It is not unbiased: what it leaves out is remembered and added to the next vector.

The bytes are the mean size, float32; the unary parts of all gaps; their binary parts; the signs. The unary parts are
filled up to the longest that they can be (7 % more at 4 %), since a length shall not tell anything about the data.
"""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from edgefl.codecs.base import Codec, expect_bytes, register
from edgefl.errors import CodecError

__all__ = ["STC", "ternary_codec"]

_USUAL = Fraction(1, 100)


def ternary_codec(name: str, fraction: Fraction) -> Codec:
    """A codec that sends the largest elements.

    Args:
        name: its name.
        fraction: of the elements, above 0 and below 1; rounded up.
    """

    def sizes(size: int) -> tuple[int, int, int]:
        """The elements that are sent, the bits of the binary part of a gap, and those of all unary parts."""
        count = -(-size * fraction.numerator // fraction.denominator)
        width = _binary_bits(count, size)
        return count, width, count + (size - count >> width)

    def encode(vector: NDArray[np.float32], seed: int) -> bytes:
        count, width, unary = sizes(vector.size)
        if not count:
            return b""
        places = _largest(np.abs(vector), count)
        chosen = vector[places]
        mean = np.float32(min(np.abs(chosen).mean(dtype=np.float64), np.finfo(np.float32).max))
        gaps = np.diff(places, prepend=-1) - 1
        # Ones as many as the gap holds 2^width, then a zero; what fills up are ones.
        bits = np.ones(unary, np.uint8)
        bits[np.cumsum(gaps >> width) + np.arange(count)] = 0
        low = (gaps[:, None] >> np.arange(width) & 1).astype(np.uint8)
        return b"".join(
            (np.array([mean], "<f4").tobytes(), _packed(bits), _packed(low.reshape(-1)), _packed(chosen < 0))
        )

    def decode(data: bytes | memoryview, size: int, seed: int) -> NDArray[np.float32]:
        count, width, unary = sizes(size)
        vector = np.zeros(size, np.float32)
        lengths = [_bytes(bits) for bits in (unary, count * width, count)]
        expect_bytes(name, data, 4 + sum(lengths) if count else 0, size)
        if not count:
            return vector
        packed = np.frombuffer(data, np.uint8, offset=4)
        first, second = lengths[0], lengths[0] + lengths[1]
        zeros = np.flatnonzero(np.unpackbits(packed[:first], count=unary, bitorder="little") == 0)
        if zeros.size != count:
            raise CodecError(f"Codec {name!r} expects {count} places, got {zeros.size}.")
        low = np.unpackbits(packed[first:second], count=count * width, bitorder="little").reshape(count, width)
        gaps = (np.diff(zeros, prepend=-1) - 1 << width) + low.astype(np.int64) @ (1 << np.arange(width))
        places = np.cumsum(gaps + 1) - 1
        if places[-1] >= size:
            raise CodecError(f"Codec {name!r} expects places below {size}, got {places[-1]}.")
        negative = np.unpackbits(packed[second:], count=count, bitorder="little").astype(bool)
        mean = np.frombuffer(data, "<f4", 1).astype(np.float32)[0]
        vector[places] = np.where(negative, -mean, mean)
        return vector

    return Codec(name, encode, decode, memory=True, contractive=True, sparse=True, sections=("delta",))


def _largest(magnitudes: NDArray[np.float32], count: int) -> NDArray[np.int64]:
    """The places of the largest, ascending; of equal ones the first."""
    least = np.partition(magnitudes, magnitudes.size - count)[magnitudes.size - count]
    above = magnitudes > least
    equal = np.flatnonzero(magnitudes == least)[: count - np.count_nonzero(above)]
    above[equal] = True
    return np.flatnonzero(above).astype(np.int64)


def _binary_bits(count: int, size: int) -> int:
    """The best parameter of Golomb's code for gaps between so many of so many (Sattler et al. 2019, equation 15)."""
    if not 0 < count < size:
        return 0
    golden = (math.sqrt(5) + 1) / 2
    return max(0, 1 + math.floor(math.log2(math.log(golden - 1) / math.log1p(-count / size))))


def _bytes(bits: int) -> int:
    return -(-bits // 8)


def _packed(bits: NDArray[np.generic]) -> bytes:
    return np.packbits(bits, bitorder="little").tobytes()  # type: ignore[arg-type]


STC = register(ternary_codec("stc", _USUAL))
