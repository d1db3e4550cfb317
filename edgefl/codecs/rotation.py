"""Randomized Hadamard rotations in blocks, after which a block's elements are about normally distributed.

Ailon and Chazelle 2009, "The fast Johnson-Lindenstrauss transform"; for means of vectors Suresh et al. 2017,
"Distributed Mean Estimation with Limited Communication". Only sums, differences and products of float32 with a constant
are taken, element by element and in a fixed order, so that the numbers are the same on every machine.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgefl.codecs.randomness import Draws, Purpose

__all__ = ["BLOCK", "Piece", "padded_size", "pieces", "rotated", "turned_back"]

BLOCK = 4096
"""The elements of a block. One block for the whole vector would have to be a power of two: up to half of it waste."""
_SMALLEST = 8
_AT_ONCE = 16
"""Blocks that are worked on together: what fits into the cache of a small processor."""


@dataclass(frozen=True)
class Piece:
    """Blocks of one size, one after the other.

    Attributes:
        start: the first element.
        rows: how many blocks.
        size: elements of each, a power of two.
        first: how many blocks are before it.
    """

    start: int
    rows: int
    size: int
    first: int

    @property
    def stop(self) -> int:
        """The element behind the last, as the vector is padded."""
        return self.start + self.rows * self.size


def padded_size(size: int) -> int:
    """The elements of a vector that is cut into blocks: at most 7 zeros are added."""
    return -(-size // _SMALLEST) * _SMALLEST


def pieces(size: int) -> list[Piece]:
    """Cuts a vector: blocks of 4,096 elements, and the rest into the powers of two that it is the sum of.

    Args:
        size: its elements.
    """
    found: list[Piece] = []
    start = first = 0
    whole = size // BLOCK
    while first < whole:
        rows = min(_AT_ONCE, whole - first)
        found.append(Piece(start, rows, BLOCK, first))
        start, first = start + rows * BLOCK, first + rows
    rest, length = padded_size(size) - start, BLOCK
    while length >= _SMALLEST:
        if rest & length:
            found.append(Piece(start, 1, length, first))
            start, first = start + length, first + 1
        length //= 2
    return found


def rotated(vector: NDArray[np.float32], seed: int) -> Iterator[tuple[Piece, NDArray[np.float32]]]:
    """Rotates a vector.

    Args:
        vector: float32 ``[n]``.
        seed: of the rotation.

    Yields:
        Each piece, and its blocks after the rotation, float32 ``[rows, size]``; it is the caller's.
    """
    draws = Draws(seed, Purpose.ROTATION)
    for piece in pieces(vector.size):
        part = np.zeros(piece.rows * piece.size, np.float32)
        inside = vector[piece.start : piece.stop]
        part[: inside.size] = inside
        _change_signs(part, draws)
        yield piece, _hadamard(part.reshape(piece.rows, piece.size))


def turned_back(parts: Iterator[NDArray[np.float32]], size: int, seed: int) -> NDArray[np.float32]:
    """Makes the vector of its rotated blocks; undoes `rotated`.

    Args:
        parts: the blocks of each of `pieces`, float32 ``[rows, size]``, which are overwritten.
        size: elements of the vector.
        seed: of the rotation.

    Returns:
        float32 ``[size]``.
    """
    draws = Draws(seed, Purpose.ROTATION)
    vector = np.empty(padded_size(size), np.float32)
    for piece, part in zip(pieces(size), parts, strict=True):
        back = _hadamard(part).reshape(-1)
        _change_signs(back, draws)
        vector[piece.start : piece.stop] = back
    return vector[:size]


def _change_signs(part: NDArray[np.float32], draws: Draws) -> None:
    """Multiplies each element by 1 or -1, in place."""
    signs = draws.bits(part.size).astype(np.uint32)
    signs <<= np.uint32(31)
    bits = part.view(np.uint32)
    bits ^= signs


def _hadamard(blocks: NDArray[np.float32]) -> NDArray[np.float32]:
    """Multiplies each row by the orthonormal Hadamard matrix, which is its own inverse; overwrites what it is given.

    Every step takes pairs half a row apart and lays them side by side (Pease 1968), so that each is two operations on
    long rows whatever the step; after all of them every element is back at its place.
    """
    size = blocks.shape[1]
    half, here, there = size // 2, blocks, np.empty_like(blocks)
    with np.errstate(over="ignore", invalid="ignore"):  # what becomes infinite is noticed by whoever asks for it
        for _ in range(size.bit_length() - 1):
            np.add(here[:, :half], here[:, half:], out=there[:, 0::2])
            np.subtract(here[:, :half], here[:, half:], out=there[:, 1::2])
            here, there = there, here
        here *= np.float32(1 / math.sqrt(size))
    return here
