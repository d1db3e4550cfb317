"""All that a run can be created with, from what is registered: command line, HTTP and documentation offer just that."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from edgefl_server.aggregation.hyperparameters import Setting, settings_of
from edgefl_server.aggregation.kinds import KINDS
from edgefl_server.aggregation.schedules import SCHEDULES
from edgefl_server.aggregation.selecting import SELECTIONS
from edgefl_server.aggregation.settings import RunSettings
from edgefl_server.aggregation.strategies import STRATEGIES
from edgefl_server.aggregation.update_codecs import codec_choices

__all__ = ["run_settings"]

_NAMES: Mapping[str, Callable[[], tuple[str, ...]]] = {
    "strategy": STRATEGIES.names,
    "codec": codec_choices,
    "schedule": SCHEDULES.names,
    "kind": lambda: tuple(KINDS),
    "selection": SELECTIONS.names,
}
"""Settings that are the name of something, and whence the names."""


def run_settings() -> tuple[Setting, ...]:
    """All that a run can be created with: its own settings, and the hyperparameters of every strategy.

    One that several strategies have is there once. A hyperparameter is never required, since not every strategy has it;
    None stands for one that is not given.
    """
    found: list[Setting] = []
    # Those that parts of it bring come after its own.
    for each in sorted(settings_of(RunSettings), key=lambda each: each.name not in RunSettings.__annotations__):
        names = _NAMES.get(each.name)
        if names is not None:
            each = replace(each, help=each.help.replace("{names}", _or(names())))
        found.append(each)
        if each.name == "strategy":
            found.extend(_hyperparameters())
    return tuple(found)


def _hyperparameters() -> list[Setting]:
    having: dict[str, dict[str, Setting]] = {}
    for strategy in STRATEGIES.names():
        for each in settings_of(STRATEGIES.get(strategy)):
            having.setdefault(each.name, {})[strategy] = each
    merged = []
    for name, owners in having.items():
        helps = list(dict.fromkeys(each.help.rstrip(".") for each in owners.values()))
        defaults: dict[str, list[str]] = {}
        for owner, each in owners.items():
            for one, default in each.owners or ((owner, each.unless_given),):
                known = defaults.setdefault(default, [])
                known.extend([one] if one not in known else [])
        merged.append(
            Setting(
                name,
                next(iter(owners.values())).kind,
                None,
                True,
                ", ".join(helps) + ".",
                shown=_shown(defaults),
            )
        )
    return merged


def _shown(defaults: Mapping[str, Sequence[str]]) -> str:
    """The defaults, each with those that have it; one alone needs no names."""
    if len(defaults) == 1 and "required" not in defaults:
        return next(iter(defaults))
    return "; ".join(f"{', '.join(having)}: {default}" for default, having in defaults.items())


def _or(names: tuple[str, ...]) -> str:
    return " or ".join(filter(None, (", ".join(names[:-1]), names[-1])))
