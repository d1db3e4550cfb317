"""Says in words how the settings of a simulation differ from those that its folder was begun with."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["changed"]

_HASH = re.compile(r"[0-9a-f]{64}")
_ALIKE = ("local", "ray")
"""Engines that go on from each other's folders."""
_NOT_TYPED = ("model", "pace", "personalise")
"""Settings that are no option of their own."""


def changed(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """A phrase for each setting that is another one, with names in braces: ``{rounds} is 5 there, got 6``.

    Args:
        before: as the folder has them, plain values.
        now: as they are given.
    """
    names = sorted(name for name in {*before, *now} if _differ(name, before, now))
    return [_phrase(name, before.get(name), now.get(name)) for name in names]


def _differ(name: str, before: Mapping[str, Any], now: Mapping[str, Any]) -> bool:
    pair = before.get(name), now.get(name)
    return pair[0] != pair[1] and not (name == "engine" and all(each in _ALIKE for each in pair))


def _phrase(name: str, before: Any, now: Any) -> str:
    if name == "data" and isinstance(before, Mapping) and isinstance(now, Mapping):
        return f"{{data}} is not the same: {_array(before, now)}"
    word = name if name in _NOT_TYPED else f"{{{name}}}"
    if any(isinstance(each, Mapping) for each in (before, now)):
        return f"{word} is another one there"
    return f"{word} is {_shown(before)} there, got {_shown(now)}"


def _array(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """The first array that is another one, or lacks: each is a shape, a type and a checksum."""
    for name in (*before, *now):
        one, other = before.get(name), now.get(name)
        if one is None or other is None:
            return f"{name!r:.80} is {'missing there' if one is None else 'missing'}"
        if one[:2] != other[:2]:
            return f"{name!r:.80} is {_form(one)} there, got {_form(other)}"
        if one != other:
            return f"{name!r:.80} has other values"
    return "its arrays stand in another order"


def _form(array: Sequence[Any]) -> str:
    return f"{array[1]} of shape {tuple(array[0])}"


def _shown(value: Any) -> str:
    if value is None:
        return "none"
    return f"{value[:12]}…" if isinstance(value, str) and _HASH.fullmatch(value) else f"{value!r:.80}"
