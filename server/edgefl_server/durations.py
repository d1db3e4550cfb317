"""Spans of time as people type them: ``7d``, ``12h``, ``90m``."""

from __future__ import annotations

import re

import typer

__all__ = ["duration"]

_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0, "w": 604_800.0}
_FORM = re.compile(r"([0-9]{1,6}(?:\.[0-9]{1,3})?)([smhdw])")


def duration(text: str) -> float:
    """The seconds of a span.

    Raises:
        BadParameter: it is none, or takes no time.
    """
    found = _FORM.fullmatch(text.strip())
    seconds = float(found[1]) * _UNITS[found[2]] if found else 0.0
    if seconds <= 0:
        raise typer.BadParameter(f"expected a number with s, m, h, d or w behind it, such as 7d, got {text!r}")
    return seconds
