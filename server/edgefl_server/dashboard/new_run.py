"""The form for a new run: a field for each setting, as `RunSettings` and the strategies declare them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from edgefl_server.aggregation import STRATEGIES, Setting, run_settings
from edgefl_server.aggregation.schedules import SCHEDULES

__all__ = ["Field", "Section", "sections"]

_FIRST = ("rounds", "target", "strategy", "epochs", "batch_size", "learning_rate")
_OFTEN = (
    *("minimum", "deadline_seconds", "over_selection", "selection", "codec", "down_codec", "clip_norm"),
    *("evaluate_every", "evaluate_cohort", "schedule", "server_learning_rate", "mu", "seed"),
)


_NAMES: dict[str, Callable[[], Sequence[str]]] = {"strategy": STRATEGIES.names, "schedule": SCHEDULES.names}


@dataclass(frozen=True)
class Field:
    """A field of the form.

    Attributes:
        name: the setting's.
        label: its name in words.
        help: one sentence.
        kind: ``number``, ``text``, ``choice`` or ``switch``.
        step: of a number: ``1`` or ``any``.
        choices: of a choice.
        shown: what it is unless given.
        required: whether it has to be given.
    """

    name: str
    label: str
    help: str
    kind: str
    step: str
    choices: tuple[str, ...]
    shown: str
    required: bool


@dataclass(frozen=True)
class Section:
    """Fields that belong together; closed ones are opened by whoever needs them."""

    title: str
    fields: tuple[Field, ...]
    closed: bool


def sections() -> list[Section]:
    """The form: what nearly everybody sets, what many do, and all else."""
    known = {each.name: each for each in run_settings()}
    rest = [name for name in known if name not in (*_FIRST, *_OFTEN)]
    return [
        Section("The run", _fields(known, _FIRST), closed=False),
        Section("Deadlines, codecs, evaluation", _fields(known, _OFTEN), closed=True),
        Section("All other options", _fields(known, rest), closed=True),
    ]


def _fields(known: dict[str, Setting], names: Sequence[str]) -> tuple[Field, ...]:
    return tuple(_field(known[name]) for name in names if name in known)


def _field(setting: Setting) -> Field:
    numeric = setting.kind in (int, float)
    choices = setting.choices or _NAMES.get(setting.name, tuple)()
    kind = "choice" if choices else "switch" if setting.kind is bool else "number" if numeric else "text"
    default = "" if setting.default in (dataclasses.MISSING, None, "") else str(setting.default)
    return Field(
        setting.name,
        setting.name.replace("_", " ").capitalize(),
        setting.help,
        kind,
        "1" if setting.kind is int else "any",
        tuple(choices),
        setting.shown or default,
        setting.required,
    )
