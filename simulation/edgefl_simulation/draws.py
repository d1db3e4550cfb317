"""Every random choice of a simulation as a function of the run's seed and of what the choice is about.

Raw output of Philox only, as in `edgefl_device_runtime.training.randomness`: numpy promises that it never changes.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterator, Sequence

import numpy as np

__all__ = ["Line", "drawn_order", "stream", "uniform"]


def stream(seed: int, *about: object) -> np.random.Philox:
    """Random numbers for one purpose.

    Args:
        seed: of the run.
        about: what tells this purpose from others.
    """
    text = " ".join(map(str, ("edgefl simulation", seed, *about)))
    return np.random.Philox(np.random.SeedSequence(int.from_bytes(hashlib.sha256(text.encode()).digest(), "little")))


def uniform(seed: int, *about: object) -> float:
    """One number from 0 up to but not including 1."""
    return float(stream(seed, *about).random_raw() >> 11) * 2.0**-53


def drawn_order(count: int, seed: int, *about: object) -> Iterator[int]:
    """Numbers below `count` in a random order, each once; costs what is taken of it, not what there is.

    Args:
        count: how many there are.
        seed: of the run.
        about: what the order is for.
    """
    random = stream(seed, *about)
    seen: set[int] = set()
    while 2 * len(seen) < count:
        drawn = int(random.random_raw()) % count
        if drawn not in seen:
            seen.add(drawn)
            yield drawn
    rest = [each for each in range(count) if each not in seen]
    order = np.argsort(random.random_raw(len(rest)), kind="stable") if rest else ()
    yield from (rest[each] for each in order)


class Line(Iterator[int]):
    """Devices as they come to ask for work: in a random order, and in another one when all have asked; endless.

    Args:
        devices: how many there are.
        seed: of the run.
        cohort: for whose work they ask.
        taken: how many have asked already.
        order: that of each turn; None: it is drawn.

    Attributes:
        taken: how many have asked.
    """

    def __init__(
        self, devices: int, seed: int, cohort: int, *, taken: int = 0, order: Sequence[int] | None = None
    ) -> None:
        def turn(number: int) -> Iterator[int]:
            return drawn_order(devices, seed, "line", cohort, number) if order is None else iter(order)

        self.taken = taken
        first, asked = divmod(taken, devices) if devices else (0, 0)
        self._coming = itertools.islice(
            itertools.chain.from_iterable(turn(number) for number in itertools.count(first)), asked, None
        )

    def __next__(self) -> int:
        self.taken += 1
        return next(self._coming)
