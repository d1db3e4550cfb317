"""Everything that a codec draws, as a function of its seed and of what the choice is about.

Raw output of Philox only (Salmon et al. 2011, a counter-based generator): numpy promises that it never changes, and it
is the same on every machine.
"""

from __future__ import annotations

from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

__all__ = ["Draws", "Purpose"]


class Purpose(IntEnum):
    """The choices that are drawn apart from each other, so that one codec may be made of others with one seed."""

    ROTATION = 1
    ROUNDING = 2
    SUBSET = 3


class Draws:
    """A stream of random numbers.

    Args:
        seed: from 0 to 2⁶⁴ - 1.
        purpose: what they are for.
    """

    def __init__(self, seed: int, purpose: Purpose) -> None:
        self._random = np.random.Philox(key=np.array([seed, purpose], np.uint64))

    def words(self, count: int) -> NDArray[np.uint64]:
        """The next whole numbers of 64 random bits, ``[count]``."""
        return np.asarray(self._random.random_raw(count), np.uint64)

    def bits(self, count: int) -> NDArray[np.uint8]:
        """The next random bits ``[count]``, each 0 or 1; up to 63 more are drawn and dropped."""
        drawn = self.words(-(-count // 64)).astype("<u8", copy=False).view(np.uint8)
        return np.unpackbits(drawn, count=count, bitorder="little")

    def uniform(self, count: int) -> NDArray[np.float32]:
        """The next numbers ``[count]`` from 0 up to but not including 1, in steps of 2⁻²⁴."""
        drawn = self.words(-(-count // 2)).astype("<u8", copy=False).view("<u4")[:count]
        return (drawn >> np.uint32(8)).astype(np.float32) * np.float32(2.0**-24)
