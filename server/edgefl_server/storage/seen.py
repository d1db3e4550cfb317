"""The dates of devices' last calls: kept in memory, as a call of a device must not write, and written now and then."""

from __future__ import annotations

import time
from collections.abc import Callable

from sqlalchemy import bindparam, update

from edgefl_server.storage.database import Database
from edgefl_server.storage.statements import Statement
from edgefl_server.storage.tables import devices

__all__ = ["WRITTEN_SECONDS", "Seen"]

WRITTEN_SECONDS = 300.0
"""The age that a date on the disk may have, and all that a kill costs."""
_AT_ONCE = 500
"""Nobody else can write meanwhile."""
_SEE = Statement(update(devices).where(devices.c.device == bindparam("of")).values(seen_at=bindparam("seen_at")))


class Seen:
    """Knows the last call of each device that has called since the start.

    Args:
        clock: in seconds; never set.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._latest: dict[str, float] = {}
        self._unwritten: dict[str, float] = {}
        self._written = clock()
        self.latest_at = 0.0
        """The date of the latest call of any device since the start; 0: there was none."""

    def note(self, device: str, date: float) -> None:
        """A device has called. Two entries and a date in memory, and nothing else."""
        self._latest[device] = self._unwritten[device] = self.latest_at = date

    def of(self, device: str) -> float | None:
        """The date of its last call; None: it has not called since the start."""
        return self._latest.get(device)

    def forget(self, device: str) -> None:
        """It was removed."""
        self._latest.pop(device, None)
        self._unwritten.pop(device, None)

    def keep(self, database: Database, *, now: bool = False) -> int:
        """Writes what is new, once it is time to; how many devices that are.

        Args:
            database: of the devices.
            now: it is.

        Raises:
            StorageError: it cannot be written; then it is the next time.
        """
        if not now and self._clock() - self._written < WRITTEN_SECONDS:
            return 0
        self._written = self._clock()
        due = list(self._unwritten.items())
        for start in range(0, len(due), _AT_ONCE):
            part = due[start : start + _AT_ONCE]
            with database.write() as session:
                for device, date in part:
                    session.execute(_SEE, {"of": device, "seen_at": date})
            for device, date in part:
                if self._unwritten.get(device) == date:  # else it has called meanwhile
                    self._unwritten.pop(device, None)
        return len(due)
