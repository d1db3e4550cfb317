"""The audit log: who did what and when. Rows are only ever added; the database refuses everything else."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

from sqlalchemy import select

from edgefl_server.storage.sessions import Session
from edgefl_server.storage.state import ServerState
from edgefl_server.storage.tables import AuditRow

__all__ = ["MOST_ENTRIES", "Refusals", "audit_entries", "note_act", "record"]

MOST_ENTRIES = 1000
"""Entries that are read at once."""
_LONGEST_TEXT = 64
_LONGEST_ABOUT = 128
_MOST_SOURCES = 8
_KEPT_SECONDS = 600.0
"""Refusals of so long are one row: however many strangers there are, that is 144 rows a day."""


def record(
    session: Session, at: float, who: str, role: str, act: str, about: str = "", detail: Mapping[str, Any] | None = None
) -> None:
    """Adds an entry in a transaction that is under way.

    Args:
        session: that writes.
        at: the date.
        who: an operator's name, or a device's id, as it is.
        role: of the operator; ``device`` or ``stranger``.
        act: what was done, such as ``runs.stop``.
        about: the run, device or operator to which it was done.
        detail: what JSON can hold, and no secret.
    """
    session.add(
        AuditRow(
            at=at,
            who=who[:_LONGEST_TEXT],
            role=role,
            act=act[:_LONGEST_TEXT],
            about=about[:_LONGEST_ABOUT],
            detail=dict(detail or {}),
        )
    )


def note_act(
    state: ServerState, who: str, role: str, act: str, about: str = "", detail: Mapping[str, Any] | None = None
) -> None:
    """Adds an entry in a transaction of its own; see `record`."""
    with state.database.write() as session:
        record(session, state.date(), who, role, act, about, detail)


def audit_entries(
    state: ServerState, limit: int = 100, *, since: float | None = None, before: int | None = None
) -> dict[str, Any]:
    """A page of the log, newest first.

    Args:
        state: the server's.
        limit: at most so many, and at most `MOST_ENTRIES`.
        since: none that are older than this date.
        before: only those with a smaller number.

    Returns:
        ``audit``: the entries, and ``next``: the `before` of the page behind it, None where that would be empty.
    """
    limit = min(limit, MOST_ENTRIES)
    query = select(AuditRow).order_by(AuditRow.number.desc()).limit(limit + 1)
    if since is not None:
        query = query.where(AuditRow.at >= since)
    if before is not None:
        query = query.where(AuditRow.number < before)
    with state.database.read() as session:
        rows = session.scalars(query).all()
    found = [
        {
            "number": row.number,
            "at": row.at,
            "who": row.who,
            "role": row.role,
            "act": row.act,
            "about": row.about,
            "detail": row.detail,
        }
        for row in rows[:limit]
    ]
    return {"audit": found, "next": found[-1]["number"] if len(rows) > limit else None}


class Refusals:
    """Counts who was not let in, and says it in one entry every ten minutes: a stranger cannot fill the disk.

    Args:
        clock: in seconds; never set.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock, self._lock = clock, threading.Lock()
        self._since: float | None = None
        self._kinds: Counter[str] = Counter()
        self._sources: Counter[str] = Counter()

    def note(self, kind: str, source: str) -> None:
        """Counts one.

        Args:
            kind: what it was taken for, of a few words that there are.
            source: an address, or an operator's name.
        """
        with self._lock:
            if self._since is None:
                self._since = self._clock()
            self._kinds[kind] += 1
            if source in self._sources or len(self._sources) < _MOST_SOURCES:
                self._sources[source[:_LONGEST_TEXT]] += 1

    def keep(self, state: ServerState, *, now: bool = False) -> None:
        """Writes what was counted, once it is time to.

        Args:
            state: the server's.
            now: it is.

        Raises:
            StorageError: it cannot be written; then it is counted on.
        """
        with self._lock:
            if self._since is None or not (now or self._clock() - self._since >= _KEPT_SECONDS):
                return
            seconds = self._clock() - self._since
            kinds, sources = Counter(self._kinds), Counter(self._sources)
        detail = {
            "count": kinds.total() if hasattr(kinds, "total") else sum(kinds.values()),
            "kinds": dict(sorted(kinds.items())),
            "from": dict(sources),
            "seconds": round(seconds, 1),
        }
        note_act(state, "", "stranger", "refused", detail=detail)
        with self._lock:
            self._kinds -= kinds
            self._sources = Counter()
            self._since = self._clock() if self._kinds else None
