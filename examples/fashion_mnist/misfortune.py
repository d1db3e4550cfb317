"""Devices die at random moments and come back."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from typing import Any, Protocol

__all__ = ["MOST_KILLS_PER_ROUND", "Misfortune", "Mortal"]

MOST_KILLS_PER_ROUND = 3
"""A device that is killed trains its round again from the start: without a bound a round need not end."""
_FIRST_ROUND_SECONDS = 5.0


class Mortal(Protocol):
    """A device's process."""

    @property
    def running(self) -> bool:
        """Whether it lives."""

    def kill(self) -> None:
        """Kills it without a warning."""


class Misfortune:
    """Kills devices and starts them again, at random moments.

    Args:
        devices: that it happens to.
        restart: starts one again.
        seed: of who and when.
        clock: seconds.
    """

    def __init__(
        self,
        devices: Sequence[Mortal],
        restart: Callable[[Any], None],
        seed: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._devices, self._restart, self._clock = devices, restart, clock
        self._random = random.Random(seed)
        self.kills = 0
        self.next_round(_FIRST_ROUND_SECONDS)

    def next_round(self, expected_seconds: float) -> None:
        """Allows new kills, most of them in the first half of the time that a round is expected to take."""
        self._left = MOST_KILLS_PER_ROUND
        self._pause = expected_seconds / MOST_KILLS_PER_ROUND / 2
        self._due = self._next()

    def __call__(self) -> None:
        """Does what is due."""
        if self._left == 0 or self._clock() < self._due:
            return
        device = self._random.choice(list(self._devices))
        if device.running:
            device.kill()
            self._restart(device)
            self.kills += 1
        self._left -= 1
        self._due = self._next()

    def _next(self) -> float:
        return self._clock() + self._random.uniform(0, 2 * self._pause)
