"""Whether contenders do the same: their losses from the same weights on the same batch."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence

__all__ = ["TOLERANCE", "differing"]

TOLERANCE = 1e-4
"""Relative; what float32 in another order may change."""


def differing(losses: Mapping[str, Sequence[float]]) -> dict[str, str]:
    """Who computes something else.

    The first loss and the one after the updates are compared with the median over contenders.

    Args:
        losses: of successive steps, by contender.

    Returns:
        What is wrong, by contender.
    """
    found = {}
    for name, own in losses.items():
        for index, title in ((0, "first loss"), (len(own) - 1, f"loss after {len(own) - 1} steps")):
            wanted = statistics.median(each[index] for each in losses.values())
            if not abs(own[index] - wanted) <= TOLERANCE * abs(wanted):
                found.setdefault(name, f"{title} {own[index]:.6g}, others have {wanted:.6g}")
        if not abs(own[-1] - own[0]) > 3 * TOLERANCE * abs(own[0]):
            found.setdefault(name, f"the loss stays at {own[0]:.6g}: it does not learn")
    return found
