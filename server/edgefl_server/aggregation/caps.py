"""Bounds how much each device counts in an average, whatever it says about itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["Counted", "count_examples"]

_FAR_ABOVE = 4
"""Times the median: honest devices differ by as much, also in fleets of three."""


@dataclass(frozen=True)
class Counted:
    """The weights of a round's outcomes.

    Attributes:
        examples: for how many each device counts, in the order in which they were given.
        capped: how many devices said more than that.
        cap: the largest number that counted, where one was capped; else 0.
    """

    examples: tuple[int, ...]
    capped: int
    cap: int


def count_examples(said: Sequence[int], most: int, ratio: float) -> Counted:
    """The numbers of examples that devices say they have, as they count.

    A number that a device makes up must not make the average its own. So each counts for at most ``ratio`` times the
    median of the round. Among three or more a device that is far above the median (four times it) counts, besides, for
    no more than all others together; and one that says more than ``ratio`` times the median, which is not believed, for
    no more than these in any case. The lower of two medians is taken, which is the smaller of two devices: one that
    says too much must not lift what it is measured by. The result does not depend on the order, and is exactly what was
    said where nobody is above these.

    Args:
        said: each device's own word, at least 1.
        most: no device counts for more.
        ratio: at least 1; 0: only ``most`` holds.
    """
    if not said:
        return Counted((), 0, 0)
    cap = most
    if ratio:
        median = sorted(said)[(len(said) - 1) // 2]
        cap = min(most, int(ratio * median))
        counting = [min(each, cap) for each in said]
        others = sum(counting) - max(counting)
        if len(said) >= 3:
            # Only the largest can be above all others together.
            believed = max(said) <= ratio * median
            cap = min(cap, max(others, _FAR_ABOVE * median if believed else median))
    examples = tuple(min(each, cap) for each in said)
    capped = sum(counts < each for counts, each in zip(examples, said, strict=True))
    return Counted(examples, capped, max(examples) if capped else 0)
