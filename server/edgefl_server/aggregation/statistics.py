"""Keeps merged statistics (the moving averages of a batch normalisation) such that a model with them stays finite.

Weights are bounded by the norm of their update, statistics by nothing: a variance may honestly be 10⁴ on the first
update and 10⁻³ on the next. What a device makes of each element is therefore held to a range: an absolute one, and
one around the median of what the round's devices make of it. A median stays among the honest devices' values as long as
they are more than half (Yin et al. 2018, "Byzantine-Robust Distributed Learning", use it instead of the mean; here it
only says where the mean's terms may lie).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgefl_server.aggregation.limits import ModelLimits

__all__ = ["Range", "absolute_range", "range_of_round"]

LARGEST_VALUE, LARGEST_VARIANCE = 2.0**50, 2.0**100
"""It lies beyond every mean of raw data, also of milliseconds since 1970 (1.8·10¹²), and its square. A batch
normalisation subtracts, squares at most and divides by the root: with such numbers float32, which ends at 3·10³⁸, stays
finite."""
_WIDTH = 100.0
"""The bound in multiples of 1 + |median|. A device may take a hundred local steps where another takes one; with Keras's
momentum of 0.99 it then moves sixty times as far."""
_ROUNDING = 2.0**-10
"""Relative; float16 rounds to 2⁻¹¹."""


@dataclass(frozen=True)
class Range:
    """The range in which each element of the statistic section may lie.

    Attributes:
        base: float32 ``[size]``: what the round starts from.
        low: float64 ``[size]``.
        high: float64 ``[size]``.
    """

    base: NDArray[np.float32]
    low: NDArray[np.float64]
    high: NDArray[np.float64]

    def bounded(self, change: NDArray[np.float32]) -> tuple[NDArray[np.float32], int]:
        """A device's change with what it makes of each element held to the range, and how many elements were outside.

        Where all are inside the result is the given array itself. What is outside by no more than a codec rounds (a
        variance that really fell to 0, sent as float16) is held to the range and not counted.
        """
        value = self.base.astype(np.float64) + change
        outside = (value < self.low) | (value > self.high)
        if not outside.any():
            return change, 0
        excess = np.maximum(self.low[outside] - value[outside], value[outside] - self.high[outside])
        count = int(np.count_nonzero(excess > np.abs(change[outside]) * _ROUNDING))
        result = change.copy()
        result[outside] = (np.clip(value[outside], self.low[outside], self.high[outside])) - self.base[outside]
        return result, count

    def settled(self, statistics: NDArray[np.float32]) -> NDArray[np.float32]:
        """Merged statistics with the last rounding undone that could make a variance of 0 negative."""
        outside = (statistics < self.low) | (statistics > self.high)
        if not outside.any():
            return statistics
        return np.where(outside, np.clip(statistics, self.low, self.high), statistics).astype(np.float32)


def absolute_range(base: NDArray[np.float32], limits: ModelLimits) -> Range:
    """The range of a device that is alone in its round.

    Args:
        base: float32 ``[size]``.
        limits: of the model; says which elements are variances.
    """
    low, high = np.full(base.size, -LARGEST_VALUE), np.full(base.size, LARGEST_VALUE)
    for start, stop in limits.variances:
        low[start:stop], high[start:stop] = 0.0, LARGEST_VARIANCE
    return Range(base, low, high)


def range_of_round(
    base: NDArray[np.float32], blocks: Iterable[tuple[slice, NDArray[np.float32]]], limits: ModelLimits
) -> Range:
    """The range of a round's devices: the absolute one, and within it the median ± 100 · (1 + |median|).

    The median of an element is over what all devices make of it and what it was; of two middle ones that which is
    nearer to what it was. It does not depend on the order of the devices.

    Args:
        base: float32 ``[size]``.
        blocks: of at least two devices, see `Updates.blocks`: trained minus received.
        limits: of the model.
    """
    whole = absolute_range(base, limits)
    for part, changes in blocks:
        median = _median(base[part].astype(np.float64), changes)
        width = _WIDTH * (1.0 + np.abs(median))
        # Both ranges hold 0, so that they meet.
        np.maximum(whole.low[part], median - width, out=whole.low[part])
        np.minimum(whole.high[part], median + width, out=whole.high[part])
    return whole


def _median(base: NDArray[np.float64], changes: NDArray[np.float32]) -> NDArray[np.float64]:
    values = np.empty((len(changes) + 1, base.size))
    values[0] = base
    np.add(changes, base, out=values[1:])
    middle = (len(values) - 1) // 2, len(values) // 2
    values.partition(middle, axis=0)
    lower, upper = values[middle[0]], values[middle[1]]
    nearer: NDArray[np.float64] = np.where(np.abs(upper - base) < np.abs(lower - base), upper, lower)
    return nearer
