"""Codecs that send a random part of a vector, written with another codec: ``rand-0.25+drive``.

Rand-k of Konečný and Richtárik 2018, "Randomized Distributed Mean Estimation: Accuracy vs. Communication": of n
elements k are drawn, and count n/k times, so that the mean is right; the squared error is n/k - 1 times the squared
norm, beside that of the other codec. Which elements they are follows from the seed and is not sent (the random masks of
Konečný et al. 2016, "Federated Learning: Strategies for Improving Communication Efficiency").
"""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from edgefl.codecs.base import Codec
from edgefl.codecs.randomness import Draws, Purpose

__all__ = ["subset_codec"]

_STRIDE = 1 << 16
"""From so many elements after each other a fixed number is drawn, so that no more than these need keys at a time."""


def subset_codec(name: str, fraction: Fraction, inner: Codec) -> Codec:
    """A codec that sends a part of the elements.

    Args:
        name: its name.
        fraction: of the elements, above 0 and below 1; rounded up.
        inner: what they are written with; without memory.
    """

    def encode(vector: NDArray[np.float32], seed: int) -> bytes:
        drawn = np.empty(_count(vector.size, fraction), np.float32)
        with np.errstate(over="ignore"):
            for at, places, factor in _drawn(vector.size, fraction, seed):
                np.multiply(vector[places], factor, out=drawn[at : at + places.size])
        return inner.encode(drawn, seed)

    def decode(data: bytes | memoryview, size: int, seed: int) -> NDArray[np.float32]:
        drawn = inner.decode(data, _count(size, fraction), seed)
        vector = np.zeros(size, np.float32)
        for at, places, _ in _drawn(size, fraction, seed):
            vector[places] = drawn[at : at + places.size]
        return vector

    return Codec(name, encode, decode, unbiased=inner.unbiased, sparse=True, sections=inner.sections or Codec.sections)


def _part(length: int, fraction: Fraction) -> int:
    return -(-length * fraction.numerator // fraction.denominator)


def _count(size: int, fraction: Fraction) -> int:
    """The elements that are sent of so many."""
    whole, rest = divmod(size, _STRIDE)
    return whole * _part(_STRIDE, fraction) + _part(rest, fraction)


def _drawn(size: int, fraction: Fraction, seed: int) -> Iterator[tuple[int, NDArray[np.intp], np.float32]]:
    """Yields, stride by stride, how many were drawn before, which elements are drawn, and how often each counts."""
    draws = Draws(seed, Purpose.SUBSET)
    at = 0
    for start in range(0, size, _STRIDE):
        length = min(_STRIDE, size - start)
        count = _part(length, fraction)
        keys = draws.words(length)
        # The elements of the smallest keys; of equal ones, which hardly occur, the first.
        largest = np.partition(keys, count - 1)[count - 1]
        places = np.flatnonzero(keys <= largest)[:count]
        yield at, places + start, np.float32(length / count)
        at += count
