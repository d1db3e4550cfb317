"""Codecs that rotate a vector at random and write each element as the nearest of a few numbers.

Vargaftik et al. 2021, "DRIVE: One-bit Distributed Mean Estimation", and 2022, "EDEN: Communication-Efficient and Robust
Distributed Mean Estimation for Federated Learning". The bytes are the scale of each block, float32, then a plane for
each bit of the elements' numbers, from the lowest.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from edgefl.codecs.base import Codec, expect_bytes
from edgefl.codecs.rotation import padded_size, pieces, rotated, turned_back

__all__ = ["rotated_codec"]

_LARGEST = float(np.finfo(np.float32).max)


def rotated_codec(name: str, positive: tuple[float, ...]) -> Codec:
    """A codec that writes rotated elements as one of some numbers and their negatives.

    The scale of a block x is ``|x|² / <R x, Q(R x)>``, with which what is decoded has the mean x over all rotations
    (EDEN, section 3; DRIVE, section 4.2, for one bit). The papers prove it of uniform rotations; of the Hadamard
    rotation it holds up to what a block with few elements that are not 0 leaves, since its scale makes the component
    along x exact in any case.

    Args:
        name: the codec's.
        positive: the numbers above 0 for elements of variance 1, ascending; a power of two of them.
    """
    values = np.array([*(-each for each in reversed(positive)), *positive], np.float32)
    middles = ((values[1:].astype(np.float64) + values[:-1]) / 2).astype(np.float32)
    width = values.size.bit_length() - 1
    one = width == 1

    def encode(vector: NDArray[np.float32], seed: int) -> bytes:
        cut = pieces(vector.size)
        scales = np.zeros(sum(each.rows for each in cut), "<f4")
        numbers = np.empty(padded_size(vector.size), np.uint8)
        for piece, part in rotated(vector, seed):
            squares = np.sum(np.square(part, dtype=np.float64), axis=1)
            if one:
                numbers[piece.start : piece.stop] = (part > 0).reshape(-1)
                along = np.sum(np.abs(part), axis=1, dtype=np.float64) * positive[0]
            else:
                with np.errstate(all="ignore"):  # a block of zeros
                    spread = np.sqrt(piece.size / squares).astype(np.float32)
                    nearest = np.searchsorted(middles, part * spread[:, None]).astype(np.uint8)
                numbers[piece.start : piece.stop] = nearest.reshape(-1)
                along = np.sum(part * values[nearest], axis=1, dtype=np.float64)
            with np.errstate(all="ignore"):
                scale = np.where(squares > 0, squares / along, 0.0)
            scales[piece.first : piece.first + piece.rows] = np.minimum(scale, _LARGEST)
        planes = [np.packbits(numbers >> bit & 1, bitorder="little").tobytes() for bit in range(width)]
        return b"".join((scales.tobytes(), *planes))

    def decode(data: bytes | memoryview, size: int, seed: int) -> NDArray[np.float32]:
        cut = pieces(size)
        blocks, plane = sum(each.rows for each in cut), padded_size(size) // 8
        expect_bytes(name, data, 4 * blocks + width * plane, size)
        scales = np.frombuffer(data, "<f4", blocks).astype(np.float32, copy=False)
        planes = np.frombuffer(data, np.uint8, offset=4 * blocks).reshape(width, plane)

        def parts() -> Iterator[NDArray[np.float32]]:
            for piece in cut:
                inside = planes[:, piece.start // 8 : piece.stop // 8]
                numbers = np.unpackbits(inside, axis=1, bitorder="little")
                chosen = numbers[0]
                for bit in range(1, width):
                    chosen |= numbers[bit] << bit
                scale = scales[piece.first : piece.first + piece.rows, None]
                with np.errstate(all="ignore"):  # what is not finite is noticed by whoever folds
                    yield values[chosen].reshape(piece.rows, piece.size) * scale

        return turned_back(parts(), size, seed)

    return Codec(name, encode, decode, unbiased=True, contractive=True)
