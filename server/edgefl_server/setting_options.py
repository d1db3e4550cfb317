"""The settings of a run as options of the command line."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Annotated, Any, TypeVar

import typer

from edgefl_server.aggregation import Setting, run_settings

__all__ = ["RULE_PANEL", "with_settings"]

RULE_PANEL = "A rule against bad devices"
_PANELS = {
    "Rounds": (
        *("rounds", "target", "cohort", "minimum", "over_selection", "deadline_seconds", "max_failures"),
        *("schedule", "seed"),
    ),
    "Whom a round asks": ("selection", "selection_window", "selection_memory_bytes"),
    "Buffered schedule": (
        *("concurrency", "staleness", "staleness_exponent", "staleness_threshold", "staleness_floor"),
        *("staleness_slope", "staleness_scale", "max_staleness"),
    ),
    "Changes from version to version": (
        *("learning_rate_course", "learning_rate_every", "learning_rate_factor", "learning_rate_least"),
        *("learning_rate_warm_up", "epochs_course", "epochs_every", "epochs_factor"),
    ),
    "An early end": ("patience", "patience_metric", "patience_least"),
    "The server's step": ("server_optimizer", "server_learning_rate", "beta_1", "beta_2", "tau", "momentum"),
    RULE_PANEL: ("rule", "root_device", "byzantine", "keep", "radius", "iterations", "smoothing"),
    "Before the rule": ("pre_aggregation", "bound", "initial_norm", "quantile", "quantile_rate", "bucket"),
    "Training on a device": ("epochs", "max_steps", "learning_rate", "batch_size", "lease_seconds", "task_seconds"),
    "What a device counts for, and sends": (
        "codec",
        "down_codec",
        "clip_norm",
        "max_examples",
        "max_weight_ratio",
        "max_update_norm",
    ),
    "Evaluation and statistics": (
        "kind",
        "evaluate_every",
        "evaluate_cohort",
        "local_test",
        "shown_from",
        "quantiles_from",
    ),
}
_PANEL_OF = {name: panel for panel, names in _PANELS.items() for name in names}
_STRATEGY_PANEL = "Strategy"
"""Its name, and the hyperparameters of all that are registered."""

Command = TypeVar("Command", bound=Callable[..., Any])


def with_settings(
    command: Command,
    called: Mapping[str, str] = MappingProxyType({}),
    shown: Mapping[str, str] = MappingProxyType({}),
    without: Collection[str] = (),
) -> Command:
    """A decorator that gives a command an option for each setting of a run, also of strategies from elsewhere.

    Args:
        command: takes them as ``**settings``, in the place of which the options stand; typer reads the signature. One
            that it takes by its name has the option that is written there.
        called: other names for some of them, by their own.
        shown: what help says of some defaults, by their own names, where that is another one than on a server.
        without: settings that the command does not have.
    """
    signature = inspect.signature(command, eval_str=True)
    parameters: list[inspect.Parameter] = []
    for each in signature.parameters.values():
        if each.kind is not inspect.Parameter.VAR_KEYWORD:
            parameters.append(each.replace(kind=inspect.Parameter.KEYWORD_ONLY))
    settings = {each.name: each for each in run_settings() if each.name not in without}
    place = next(
        index
        for index, each in enumerate(parameters)
        if each.default is not inspect.Parameter.empty and each.name not in settings
    )
    parameters[place:place] = (
        _option(replace(each, name=called.get(name, name), shown=shown.get(name, each.shown)))
        for name, each in settings.items()
        if name not in signature.parameters
    )
    vars(command)["__signature__"] = signature.replace(parameters=parameters)
    return command


def _option(setting: Setting) -> inspect.Parameter:
    kind: Any = setting.kind | None if setting.optional else setting.kind
    shown: Any = setting.shown or True
    # A switch that is off by itself needs no second one for that, which would leave no room for texts beside it.
    names = [f"--{setting.name.replace('_', '-')}"] if setting.default is False else []
    return inspect.Parameter(
        setting.name,
        inspect.Parameter.KEYWORD_ONLY,
        default=inspect.Parameter.empty if setting.default is dataclasses.MISSING else setting.default,
        annotation=Annotated[
            kind,
            typer.Option(
                *names,
                help=setting.help,
                show_default=shown,
                rich_help_panel=_PANEL_OF.get(setting.name, _STRATEGY_PANEL),
            ),
        ],
    )
