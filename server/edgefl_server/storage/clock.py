"""The server's clock: seconds that only grow, and go on from where they were when the server starts again.

What measures a duration (leases, deadlines, pauses, the seconds of a round) uses the clock; what people read as a date
uses the wall clock, which owners and time servers set forward and back.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Moment", "Reading", "ServerClock", "boot_id", "seconds_since_boot"]

_LONGEST_ABSENCE_SECONDS = 86_400.0
"""A machine that was off counts as off for a day at most: longer than that is more likely a wrong wall clock."""


@dataclass(frozen=True)
class Moment:
    """One moment on both clocks.

    Attributes:
        clock: seconds of the server's clock.
        date: seconds since 1970 in UTC.
    """

    clock: float
    date: float


@dataclass(frozen=True)
class Reading:
    """A reading of a clock that is kept, so that the clock can go on.

    Attributes:
        clock: what it said.
        date: what the wall clock said at the same time.
        boot: which start of the machine that was; empty where the system does not say.
        boottime: seconds since then, including those asleep.
    """

    clock: float
    date: float
    boot: str
    boottime: float


class ServerClock:
    """Calling it gives seconds that never go back, whatever happens to the wall clock.

    Args:
        saved: the last reading that an earlier process kept; None for a new clock, which begins at the date.
        boot: which start of the machine this is.
        boottime: seconds since then; only grows.
        date: the wall clock.
    """

    def __init__(
        self,
        saved: Reading | None,
        boot: str,
        boottime: Callable[[], float],
        date: Callable[[], float] = time.time,
    ) -> None:
        self._boot, self._boottime, self._date = boot, boottime, date
        now = boottime()
        if saved is None:
            begin = date()
        elif boot and saved.boot == boot and now >= saved.boottime:
            begin = saved.clock + (now - saved.boottime)
        else:
            # The machine was started again: only the wall clock saw how long it was off, and may be wrong by years.
            begin = saved.clock + min(max(date() - saved.date, 0.0), _LONGEST_ABSENCE_SECONDS)
        self._offset = begin - now

    def __call__(self) -> float:
        """Seconds, since no particular moment."""
        return self._offset + self._boottime()

    def reading(self) -> Reading:
        """The reading to keep now and then."""
        boottime = self._boottime()
        return Reading(self._offset + boottime, self._date(), self._boot, boottime)


def boot_id() -> str:
    """Names this start of the machine; empty where the system does not say."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()[:64]
    except OSError:
        return ""


def seconds_since_boot() -> float:
    """The seconds of a clock that nobody can set, and that goes on while the machine sleeps, where there is one."""
    clock = getattr(time, "CLOCK_BOOTTIME", None)
    return time.monotonic() if clock is None else time.clock_gettime(clock)
