"""The virtual clock: simulated seconds, which pass from one thing that happens to the next."""

from __future__ import annotations

import heapq
import itertools
from typing import Generic, TypeVar

__all__ = ["Agenda"]


What = TypeVar("What")


class Agenda(Generic[What]):
    """The list of what is to happen when; time stands still in between.

    Attributes:
        now: seconds since the beginning.
    """

    def __init__(self, now: float = 0.0) -> None:
        self.now = now
        self._coming: list[tuple[float, int, What]] = []
        self._numbers = itertools.count()

    def __len__(self) -> int:
        return len(self._coming)

    def add(self, time: float, what: What) -> None:
        """Notes that something is to happen; what is to happen at one time does so in the order of being noted.

        Args:
            time: in seconds since the beginning.
            what: for whoever asks.
        """
        heapq.heappush(self._coming, (max(time, self.now), next(self._numbers), what))

    def coming(self) -> list[tuple[float, What]]:
        """Says what is to happen, and when; in that order."""
        return [(time, what) for time, _, what in sorted(self._coming, key=lambda each: each[:2])]

    def next_before(self, time: float) -> What | None:
        """Goes on to what happens next, and says what it is; None where that is a time at which nothing was noted.

        Args:
            time: to go on to when nothing happens up to it.
        """
        if self._coming and self._coming[0][0] <= time:
            self.now, _, what = heapq.heappop(self._coming)
            return what
        self.now = max(self.now, time)
        return None
