"""Tells the owner how far something is that takes long."""

from __future__ import annotations

import time
from collections.abc import Callable

from edgefl_device_runtime.agent.journal import Journal

__all__ = ["Sending"]


class Sending:
    """Called with how many bytes of an outcome are sent; tells the journal and, now and then, the owner.

    Args:
        title: of the task.
        journal: told every time.
        report: told once in a pause.
        pause: seconds.
    """

    def __init__(self, title: str, journal: Journal, report: Callable[[str], None], pause: float) -> None:
        self._title = title
        self._journal = journal
        self._report = report
        self._pause = pause
        self._next = time.monotonic() + pause

    def __call__(self, done: int, size: int) -> None:
        """So many bytes are sent, of so many."""
        self._journal.sent(done / max(size, 1))
        if time.monotonic() >= self._next:
            self._next = time.monotonic() + self._pause
            self._report(f"{self._title}: {100 * done / max(size, 1):.0f} % of {size / 1000:.1f} kB are sent")
