"""How much each device counts in an average, whatever it says about itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["Counted", "count_examples"]


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
    """What devices say of their number of examples, as it counts.

    A number that a device makes up must not make the average its own. So each counts for at most ``ratio`` times the
    median of the round; and among three or more, a device that says more than that counts for no more than all others
    together. The lower of two medians is taken, which is the smaller of two devices: one that says too much must not
    lift what it is measured by. The result does not depend on the order, and is exactly what was said wherever nobody
    is above these multiples, however unlike the devices are.

    Args:
        said: each device's own word, at least 1.
        most: no device counts for more.
        ratio: at least 1; 0: only ``most`` holds.
    """
    if not said:
        return Counted((), 0, 0)
    cap = most
    if ratio:
        lower_median = sorted(said)[(len(said) - 1) // 2]
        cap = min(most, int(ratio * lower_median))
        counting = [min(each, cap) for each in said]
        largest = max(counting)
        if len(said) >= 3 and max(said) > ratio * lower_median:
            # Several may say so: they are then held to the same, which is at least the median.
            cap = min(cap, max(sum(counting) - largest, lower_median))
    examples = tuple(min(each, cap) for each in said)
    capped = sum(counts < each for counts, each in zip(examples, said, strict=True))
    return Counted(examples, capped, max(examples) if capped else 0)
