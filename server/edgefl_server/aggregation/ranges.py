"""The value classes behind `hyperparameters`: a setting, its range, and the error of one that it cannot have.

Messages name a setting in braces, as in ``{mu} expects a number above 0``: the command line turns that into ``--mu``.
"""

from __future__ import annotations

import dataclasses
import difflib
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from edgefl.errors import InvalidSettingError

__all__ = [
    "LARGEST",
    "NORMS",
    "NORM_HINT",
    "SMALLEST",
    "STEPS",
    "STEP_HINT",
    "Range",
    "Setting",
    "SettingError",
]

LARGEST = 1e30
"""Larger numbers are mistakes, and sums of them leave float32."""
SMALLEST = 1e-30
"""Less is 0 in the float32 of a task."""
NORMS = 1e-6, LARGEST
"""The L2 norms that new runs may have as a bound of updates."""
NORM_HINT = "A shorter update changes no weight."
STEPS = 1e-9, 1e6
"""The steps that new runs may have, of devices or of the server: with less no float32 weight changes."""
STEP_HINT = "Usual ones are below 10, and those under 1e-9 change no weight."

_NAMED = re.compile(r"\{([a-z][a-z0-9_]*)\}")


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
        choices: the texts that it may be; empty: any.
        part: the part of a strategy that has it, where the strategy has several to choose from; else empty.
        owners: of a setting of a part: who has it, each with what it is unless given.
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
    choices: tuple[str, ...] = ()
    part: str = ""
    owners: tuple[tuple[str, str], ...] = ()

    @property
    def required(self) -> bool:
        """Whether it has to be given."""
        return self.default is dataclasses.MISSING

    @property
    def unless_given(self) -> str:
        """The default as help shows it."""
        return "required" if self.required else self.shown or str(self.default) or "none"

    @property
    def _hint_of_off(self) -> str | None:
        """The value outside the range that may be given all the same; what is left out instead needs no such value."""
        if self.off is None or self.optional:
            return None if self.usual is None else self.usual.hint
        return f"Or {self.off:g}: {self.shown if self.shown and self.off == self.default else 'none'}."

    def check(self, value: Any, allowed: Range | None) -> None:
        """Refuses a number outside a range.

        Raises:
            SettingError: it is.
        """
        if self.kind is str and value is not None and not isinstance(value, str):
            raise SettingError(f"{{{self.name}}} expects text, got {value!r:.80}.")
        if self.choices and value is not None and value not in self.choices:
            raise SettingError(
                f"{{{self.name}}} expects one of {', '.join(self.choices)}, got {value!r:.80}.",
                hint=_nearest(value, self.choices),
            )
        if allowed is None or value is None or (self.off is not None and value == self.off):
            return
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise SettingError(f"{{{self.name}}} expects a number, got {value!r:.80}.")
        if self.kind is int and not isinstance(value, int):
            raise SettingError(f"{{{self.name}}} expects a whole number, got {_shown(value)}.")
        if allowed.lowest <= value <= allowed.highest:  # which no NaN is
            return
        hint = allowed.hint or self._hint_of_off
        if allowed.lowest == SMALLEST and value < SMALLEST:
            raise SettingError(f"{{{self.name}}} expects a number above 0, got {value:g}.", hint=hint)
        raise SettingError(
            f"{{{self.name}}} expects a number from {allowed.lowest:g} to {allowed.highest:g}, got {_shown(value)}.",
            hint=hint,
        )


def _nearest(value: str, names: tuple[str, ...]) -> str | None:
    near = difflib.get_close_matches(value.lower()[:80], names)
    return f"Did you mean {' or '.join(near)}?" if near else None


def _shown(value: float) -> str:
    """A number, also one that is too long to be any."""
    try:
        return f"{value:g}"
    except OverflowError:
        return "one of more than 300 digits"
