"""A setting is a field of a dataclass that says its range and its help; checks, options and tables derive from it.

Messages name a setting in braces, as in ``{mu} expects a number above 0``: the command line turns that into ``--mu``.
"""

from __future__ import annotations

import dataclasses
import functools
import re
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from edgefl.errors import InvalidSettingError

__all__ = [
    "LARGEST",
    "SMALLEST",
    "Range",
    "Setting",
    "SettingError",
    "check_ranges",
    "check_usual",
    "setting",
    "settings_of",
]

LARGEST = 1e30
"""Larger numbers are mistakes, and sums of them leave float32."""
SMALLEST = 1e-30
"""Less is 0 in the float32 of a task."""

_NAMED = re.compile(r"\{([a-z][a-z0-9_]*)\}")
_METADATA = "edgefl.setting"
_KINDS = (bool, int, float, str)


class SettingError(InvalidSettingError):
    """A setting has a value that it cannot have.

    Args:
        message: expected and got; the names of settings stand in braces.
        hint: what to do; likewise.
    """

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(_plain(message), hint=None if hint is None else _plain(hint))
        self._message, self._hint = message, hint

    def naming(self, name: Callable[[str], str]) -> InvalidSettingError:
        """The same error for somebody who knows the settings by other names.

        Args:
            name: from a setting's name to theirs.
        """

        def theirs(text: str) -> str:
            return _NAMED.sub(lambda found: name(found[1]), text)

        return InvalidSettingError(theirs(self._message), hint=None if self._hint is None else theirs(self._hint))


def _plain(text: str) -> str:
    return _NAMED.sub(lambda found: found[1], text)


@dataclass(frozen=True)
class Range:
    """The range in which a number may lie, both ends included."""

    lowest: float
    highest: float
    hint: str | None = None


@dataclass(frozen=True)
class Setting:
    """Everything that is known of a setting.

    Attributes:
        name: the field's.
        kind: bool, int, float or str.
        default: unless it is given; `dataclasses.MISSING`: it has to be.
        optional: None stands for something that only the model file knows, or another setting.
        help: one sentence.
        shown: what stands for the default in a help text; empty: the default itself.
        possible: what can be computed with; None: not a number, or checked elsewhere.
        usual: what somebody can want; None: all that is possible.
        off: a value that stands for none and may lie outside; None: there is no such value.
        hint: what to do where it is missing.
        table: the text of a table in the documentation; empty: the help.
    """

    name: str
    kind: type
    default: Any
    optional: bool
    help: str
    shown: str = ""
    possible: Range | None = None
    usual: Range | None = None
    off: float | None = None
    hint: str | None = None
    table: str = ""

    @property
    def required(self) -> bool:
        """Whether it has to be given."""
        return self.default is dataclasses.MISSING

    def check(self, value: Any, allowed: Range | None) -> None:
        """Refuses a number outside a range.

        Raises:
            SettingError: it is.
        """
        if self.kind is str and value is not None and not isinstance(value, str):
            raise SettingError(f"{{{self.name}}} expects text, got {value!r:.80}.")
        if allowed is None or value is None or (self.off is not None and value == self.off):
            return
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise SettingError(f"{{{self.name}}} expects a number, got {value!r:.80}.")
        if self.kind is int and not isinstance(value, int):
            raise SettingError(f"{{{self.name}}} expects a whole number, got {_shown(value)}.")
        if allowed.lowest <= value <= allowed.highest:  # which no NaN is
            return
        hint = allowed.hint or (None if self.off is None else f"Or {self.off:g}: none.")
        if allowed.lowest == SMALLEST and 0 <= value < SMALLEST:
            raise SettingError(f"{{{self.name}}} expects a number above 0, got {value:g}.", hint=hint)
        raise SettingError(
            f"{{{self.name}}} expects a number from {allowed.lowest:g} to {allowed.highest:g}, got {_shown(value)}.",
            hint=hint,
        )


def _shown(value: float) -> str:
    """A number, also one that is too long to be any."""
    try:
        return f"{value:g}"
    except OverflowError:
        return "one of more than 300 digits"


def setting(
    default: Any = dataclasses.MISSING,
    *,
    help: str,
    lowest: float | None = None,
    highest: float = LARGEST,
    usual: tuple[float, float] | None = None,
    why: str | None = None,
    off: float | None = None,
    shown: str = "",
    hint: str | None = None,
    table: str = "",
) -> Any:
    """A field of a dataclass that is a setting.

    Args:
        default: unless it is given.
        help: for ``--help``: one sentence.
        lowest: the smallest number possible; None: it is no number.
        highest: the largest one.
        usual: the range that new runs are held to; None: all that is possible.
        why: the hint to somebody who is outside of it.
        off: a value that stands for none.
        shown: what stands for the default in ``--help``.
        hint: to somebody who does not give it and has to.
        table: the text of the documentation's table.
    """
    possible = None if lowest is None else Range(lowest, highest, None if usual else why)
    known = {
        "help": help,
        "shown": shown,
        "possible": possible,
        "usual": None if usual is None else Range(*usual, why),
        "off": off,
        "hint": hint,
        "table": table,
    }
    return field(default=default, metadata={_METADATA: known})


def settings_of(owner: type) -> tuple[Setting, ...]:
    """The settings of a dataclass, in the order of its fields.

    Raises:
        TypeError: it is no dataclass, or a field that is a setting is no bool, int, float or str.
    """
    return _settings_of(owner)


def values_of(values: Any) -> dict[str, Any]:
    """The values of a dataclass's settings, by name."""
    return {each.name: getattr(values, each.name) for each in settings_of(type(values))}


@functools.cache
def _settings_of(owner: Any) -> tuple[Setting, ...]:
    hints = typing.get_type_hints(owner)
    found = []
    for each in sorted(dataclasses.fields(owner), key=lambda each: bool(each.kw_only)):  # a base class's come last
        if _METADATA in each.metadata:
            known: Mapping[str, Any] = each.metadata[_METADATA]
            named = typing.get_args(hints[each.name]) or (hints[each.name],)
            kinds = [kind for kind in named if kind is not type(None)]
            if len(kinds) != 1 or kinds[0] not in _KINDS:
                raise TypeError(f"The setting {each.name} of {owner.__name__} expects bool, int, float or str.")
            optional = type(None) in named
            found.append(Setting(each.name, kinds[0], each.default, optional, **known))
    return tuple(found)


def check_ranges(values: Any) -> None:
    """Refuses what cannot be computed with.

    Args:
        values: of a dataclass with settings.

    Raises:
        SettingError: a value is outside its range.
    """
    for each in settings_of(type(values)):
        each.check(getattr(values, each.name), each.possible)


def check_usual(values: Any) -> None:
    """Refuses what can be computed with but that nobody can want.

    Args:
        values: of a dataclass with settings.

    Raises:
        SettingError: a value is outside its usual range.
    """
    for each in settings_of(type(values)):
        each.check(getattr(values, each.name), each.usual)
