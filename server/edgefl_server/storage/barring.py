"""Devices that may not go on as others do, known without a look into the database: blocked ones, and limited ones."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass

from sqlalchemy import or_, select

from edgefl_server.device_states import DeviceState
from edgefl_server.storage.database import Database
from edgefl_server.storage.sessions import Session
from edgefl_server.storage.tables import DeviceRow, OutcomeRow

__all__ = ["BLOCKED", "REMOVED", "Barring", "Quota"]

BLOCKED, REMOVED = DeviceState.blocked.value, DeviceState.removed.value
_DAY_SECONDS = 86_400.0


@dataclass(frozen=True)
class Quota:
    """As much as a device may send in a day; None: as much as it likes.

    Attributes:
        outcomes: that hold an update.
        bytes: of these.
    """

    outcomes: int | None = None
    bytes: int | None = None

    def until(self, sent: list[tuple[float, int]]) -> float:
        """The date from which the device may send more; 0: now.

        Args:
            sent: what it sent within the last day, date and bytes of each, the oldest first.
        """
        free = 0.0
        if self.outcomes is not None and len(sent) >= self.outcomes:
            free = sent[len(sent) - self.outcomes][0] + _DAY_SECONDS if self.outcomes else float("inf")
        if self.bytes is not None:
            left = sum(size for _, size in sent)
            for date, size in sent:
                if left < self.bytes:
                    break
                free, left = max(free, date + _DAY_SECONDS), left - size
            if left >= self.bytes:
                free = float("inf")
        return free


class Barring:
    """Says of a device whether it is blocked or removed, and when its quota lets it go on.

    Args:
        database: read once, and for a device with a quota once for each outcome that it sent.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self.changing = threading.Lock()
        """Is held from a look at a device to what is changed of it, so that memory and database change in one order."""
        self._quotas: dict[str, Quota] = {}
        self._until: dict[str, float] = {}
        self._barred: dict[str, str] = {}
        limited = or_(DeviceRow.outcomes_a_day.is_not(None), DeviceRow.bytes_a_day.is_not(None))
        with database.read() as session:
            blocked = session.scalars(select(DeviceRow.device).where(DeviceRow.blocked_at.is_not(None)))
            self._barred.update(dict.fromkeys(blocked, BLOCKED))
            rows = session.execute(
                select(DeviceRow.device, DeviceRow.outcomes_a_day, DeviceRow.bytes_a_day).where(limited)
            )
            self._quotas.update({device: Quota(outcomes, size) for device, outcomes, size in rows})

    def why(self, device: str) -> str | None:
        """`BLOCKED` or `REMOVED`; None: it may go on."""
        return self._barred.get(device)

    @contextmanager
    def barred(self, device: str, why: str) -> Iterator[None]:
        """Bars a device before the database says so, which the block is to do: as it was before, where that raises.

        Call with `changing` held.
        """
        before = self._barred.get(device)
        self._barred[device] = why  # what is handed out from now on, it is not
        try:
            yield
        except BaseException:
            self.let(device)
            if before is not None:
                self._barred[device] = before
            raise

    def let(self, device: str) -> None:
        """Call after the database says so."""
        self._barred.pop(device, None)

    def limit(self, device: str, quota: Quota) -> None:
        """Sets a quota; one without limits ends it."""
        self._until.pop(device, None)
        if quota == Quota():
            self._quotas.pop(device, None)
        else:
            self._quotas[device] = quota

    def is_limited(self, device: str) -> bool:
        """Whether it has a quota."""
        return device in self._quotas

    def sent(self, device: str) -> None:
        """It has sent an outcome."""
        self._until.pop(device, None)

    def seconds_left(self, device: str, date: float, session: Session | None = None) -> float:
        """The seconds for which its quota is used up; 0: it may go on.

        Args:
            device: its id.
            date: now.
            session: to look anew in; None: an outcome that is being accepted just now may be missing.
        """
        quota = self._quotas.get(device)
        if quota is None:
            return 0.0
        until = self._until.get(device)
        if session is not None or until is None or 0 < until <= date:
            self._until[device] = until = quota.until(self._sent(device, date, session))
        return min(max(0.0, until - date), _DAY_SECONDS)

    def _sent(self, device: str, date: float, looking: Session | None) -> list[tuple[float, int]]:
        with self._database.read() if looking is None else nullcontext(looking) as session:
            rows = session.execute(
                select(OutcomeRow.accepted_at, OutcomeRow.size)
                .where(OutcomeRow.device == device, OutcomeRow.status == "done")
                .where(OutcomeRow.accepted_at > date - _DAY_SECONDS)
                .order_by(OutcomeRow.accepted_at)
            )
            return [(accepted_at, size) for accepted_at, size in rows]
