"""Bytes that devices fetch, counted in memory: a write for each download would cost more than the figure is worth."""

from __future__ import annotations

import threading
from collections import Counter

__all__ = ["Fetched"]


class Fetched:
    """Sums by run, from any thread; those of a process that is killed are lost with it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._bytes: Counter[str] = Counter()

    def note(self, run: str, count: int) -> None:
        """Devices have fetched so many bytes for a run."""
        with self._lock:
            self._bytes[run] += count

    def of(self, run: str) -> int:
        """The bytes of a run that are not written down yet."""
        with self._lock:
            return self._bytes[run]

    def written(self, run: str, count: int) -> None:
        """So many of them are written down."""
        self.note(run, -count)
