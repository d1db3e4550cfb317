"""Dates as people and programs read them: always UTC, in one form for each."""

from __future__ import annotations

from datetime import datetime, timezone

__all__ = ["date_and_time", "iso_date"]


def date_and_time(seconds: float | None) -> str:
    """A date for people, such as ``2026-12-01 16:20:00``; a dash for none. Where it stands says that it is UTC.

    Args:
        seconds: since 1970.
    """
    return "-" if seconds is None else f"{_at(seconds):%Y-%m-%d %H:%M:%S}"


def iso_date(seconds: float, timespec: str = "seconds") -> str:
    """A date for programs as ISO 8601 has it, such as ``2026-12-01T16:20:00Z``.

    Args:
        seconds: since 1970.
        timespec: how exactly, as `datetime.isoformat` takes it.
    """
    return _at(seconds).isoformat(timespec=timespec).replace("+00:00", "Z")


def _at(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, timezone.utc)
