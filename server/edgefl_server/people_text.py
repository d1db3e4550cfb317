"""Operators, and what they and devices did, as people read it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timezone
from typing import Any

__all__ = ["date", "operators", "table"]


def operators(result: dict[str, Any]) -> str:
    """All operators, a line each."""
    rows = [
        (each["name"], each["role"], each["state"], date(each["created_at"]), date(each["expires_at"]))
        for each in result["operators"]
    ]
    if not rows:
        return "no operators but whoever has the token of operator.json"
    return table(("name", "role", "state", "added", "expires"), rows)


def date(seconds: float | None) -> str:
    """A date for people, in UTC; a dash for none."""
    if seconds is None:
        return "-"
    return datetime.fromtimestamp(seconds, timezone.utc).strftime("%Y-%m-%d %H:%M:%S")


def table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    """Columns under each other; what is in a cell cannot begin a line of its own."""
    plain = [tuple(map(_one_line, row)) for row in [head, *rows]]
    widths = [max(len(row[column]) for row in plain) for column in range(len(head))]
    return "\n".join("  ".join(map(str.ljust, row, widths)).rstrip() for row in plain)


def _one_line(text: str) -> str:
    return "".join(letter if letter.isprintable() else "?" for letter in text)
