"""Refuses arguments of another kind than a function's annotations say, before they end somewhere else."""

from __future__ import annotations

import collections.abc
import functools
import numbers
import os
import types
import typing
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from edgefl.errors import InvalidSettingError

__all__ = ["check_kinds"]

_NUMBERS: dict[Any, Any] = {int: numbers.Integral, float: numbers.Real}
_WORDS = {
    int: "a whole number",
    float: "a number",
    str: "text",
    bool: "True or False",
    Path: "a path",
    types.NoneType: "None",
    collections.abc.Mapping: "a dict",
    collections.abc.Sequence: "a list",
    collections.abc.Callable: "a function",
}


def check_kinds(function: Callable[..., Any], given: Mapping[str, Any]) -> None:
    """Makes sure that each argument is of a kind that the function takes.

    Args:
        function: whose annotations say it.
        given: the arguments by name; those without an annotation, or that may be anything, are left alone.

    Raises:
        InvalidSettingError: one is of another kind; the message names it.
    """
    for name, kinds in _kinds(function).items():
        if name in given and not any(_is(given[name], kind) for kind in kinds):
            *others, last = dict.fromkeys(map(_word, kinds))
            wanted = " or ".join(filter(None, [", ".join(others), last]))
            value = given[name]
            raise InvalidSettingError(
                f"{name} expects {wanted}, got {value!r:.80} ({type(value).__name__}).",
                hint=f"`help({function.__name__})` says what it means.",
            )


@functools.cache
def _kinds(function: Callable[..., Any]) -> dict[str, tuple[Any, ...]]:
    """The kinds that each argument may be of; without those that may be anything."""
    found = {}
    for name, hint in typing.get_type_hints(function).items():
        kinds = typing.get_args(hint) if typing.get_origin(hint) in (typing.Union, types.UnionType) else (hint,)
        if name not in ("return", "settings") and Any not in kinds:
            found[name] = tuple(typing.get_origin(kind) or kind for kind in kinds)
    return found


def _is(value: Any, kind: Any) -> bool:
    if kind in _NUMBERS:
        return isinstance(value, _NUMBERS[kind]) and not isinstance(value, bool)
    if kind is Path:
        return isinstance(value, os.PathLike)
    if getattr(kind, "_is_protocol", False):
        return all(callable(getattr(value, name, None)) for name in vars(kind) if not name.startswith("_"))
    return isinstance(value, kind)


def _word(kind: Any) -> str:
    return _WORDS.get(kind, f"a {kind.__name__}")
