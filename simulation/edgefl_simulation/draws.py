"""Every random choice of a simulation as a function of the run's seed and of what the choice is about.

Raw output of Philox only, as in `edgefl_device_runtime.training.randomness`: numpy promises that it never changes.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterator

import numpy as np

__all__ = ["drawn_order", "line_of", "stream", "uniform"]


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


def line_of(devices: int, seed: int, cohort: int) -> Iterator[int]:
    """Devices as they come to ask for work: in a random order, and in another one when all have asked; endless.

    Args:
        devices: how many there are.
        seed: of the run.
        cohort: for whose work they ask.
    """
    for turn in itertools.count():
        yield from drawn_order(devices, seed, "line", cohort, turn)
