"""Operators, and what they and devices did, as people read it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from edgefl_server.dates import date_and_time

__all__ = ["audit", "detail", "device", "devices", "invitations", "operators", "removed", "table"]


_DIGITS = 12
"""The digits of a device's id in a list: more than commands need, and a line still fits on a terminal."""


def operators(result: dict[str, Any]) -> str:
    """All operators, a line each."""
    rows = [
        (
            each["name"],
            each["role"],
            each["state"],
            date_and_time(each["created_at"]),
            date_and_time(each["expires_at"]),
        )
        for each in result["operators"]
    ]
    if not rows:
        return "no operators but whoever has the token of operator.json"
    return table(("name", "role", "state", "added", "expires"), rows)


def audit(result: dict[str, Any]) -> str:
    """Entries of the audit log, a line each."""
    rows = []
    for each in result["audit"]:
        who, about = each["who"], each["about"]
        if each["role"] == "device":
            who = who[:_DIGITS]
        elif each["act"].startswith("devices."):
            about = about[:_DIGITS]
        said = detail(each["detail"])
        number, at = str(each["number"]), date_and_time(each["at"])
        rows.append((number, at, who or "-", each["role"], each["act"], about or "-", said))
    if not rows:
        return "nothing"
    shown = table(("", "date (UTC)", "who", "role", "did", "to", ""), rows)
    return shown if result["next"] is None else f"{shown}\nolder ones: --before {result['next']}"


def detail(said: dict[str, Any]) -> str:
    """An entry's detail in words; nothing of what was not given."""
    given = {name: value for name, value in said.items() if value not in (None, "")}
    return ", ".join(f"{name.replace('_', ' ')} {_plain(value)}" for name, value in given.items())


def invitations(result: dict[str, Any]) -> str:
    """All invitations, a line each."""
    rows = [
        (
            each["id"],
            each["population"],
            each["state"],
            f"{each['used']} of {'any' if each['uses'] is None else each['uses']}",
            date_and_time(each["created_at"]),
            date_and_time(each["expires_at"]),
            each["made_by"] or "-",
            each["label"],
        )
        for each in result["invitations"]
    ]
    head = ("id", "population", "state", "used", "made (UTC)", "expires", "by", "label")
    return table(head, rows) if rows else "nobody was invited yet"


def devices(result: dict[str, Any]) -> str:
    """A page of devices, a line each."""
    rows = [
        (
            each["device"][:_DIGITS],
            each["population"],
            each["state"],
            date_and_time(each["seen_at"]),
            str(each["outcomes"]),
            " ".join(each["tags"]),
        )
        for each in result["devices"]
    ]
    if not rows:
        return "no device"
    shown = table(("device", "population", "state", "called last (UTC)", "outcomes", "tags"), rows)
    return shown if result["next"] is None else f"{shown}\nmore: --after {result['next']}"


def device(result: dict[str, Any]) -> str:
    """All that is known of a device."""
    quota = ", ".join(f"{number:,} {name} a day" for name, number in result["quota"].items() if number is not None)
    rows = [
        ("device", result["device"]),
        ("population", result["population"]),
        ("state", result["state"] + (", at a task" if result["working"] else "")),
        ("tags", " ".join(result["tags"]) or "-"),
        ("enrolled", date_and_time(result["enrolled_at"])),
        ("called last", date_and_time(result["seen_at"])),
        ("outcomes kept", str(result["outcomes"])),
        ("quota", quota or "-"),
        *((name, json.dumps(value)) for name, value in result["capabilities"].items()),
    ]
    return table(rows[0], rows[1:])


def removed(result: dict[str, Any]) -> str:
    """The result of a removal."""
    text = f"device {result['device']} is removed; accepted outcomes that no round merges now: {result['dropped']}"
    if result["folded"]:
        text += f"\n{result['folded']} are part of weights already: they cannot be taken out"
    return text


def table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    """Columns under each other; what is in a cell cannot begin a line of its own."""
    plain = [tuple(map(_one_line, row)) for row in [head, *rows]]
    widths = [max(len(row[column]) for row in plain) for column in range(len(head))]
    return "\n".join("  ".join(map(str.ljust, row, widths)).rstrip() for row in plain)


def _plain(value: Any) -> str:
    if isinstance(value, dict):
        return " ".join(f"{name or '?'}: {count}" for name, count in value.items())
    if isinstance(value, list):
        return " ".join(map(str, value)) or "-"
    if isinstance(value, float):
        return f"{value:.0f}" if value.is_integer() else f"{value:g}"
    return str(value)


def _one_line(text: str) -> str:
    return "".join(letter if letter.isprintable() else "?" for letter in text)
