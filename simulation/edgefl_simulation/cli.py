"""``edgefl simulate``: a fleet on this machine, in one line."""

from __future__ import annotations

import contextlib
import functools
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from edgefl.cli.output import Format, FormatOption, emit
from edgefl.errors import InvalidSettingError
from edgefl.targets import CHOICES
from edgefl_server.aggregation import SettingError
from edgefl_server.option_names import converting_options, option_of
from edgefl_server.setting_options import RULE_PANEL, with_settings
from edgefl_simulation.column_options import (
    DATA_PANEL,
    SHARE,
    Devices,
    FeatureColumns,
    HeldOut,
    TargetColumn,
    listed,
)
from edgefl_simulation.data import KINDS, NAMED, OWNER
from edgefl_simulation.evaluating import Personalisation
from edgefl_simulation.history import History
from edgefl_simulation.pace import Steady
from edgefl_simulation.partitioning import PARTITIONERS
from edgefl_simulation.preparing import Division
from edgefl_simulation.profiles import SHIPPED, profile_of
from edgefl_simulation.scenario import DEFAULT_SEED, MOST_WORKERS, Simulation
from edgefl_simulation.simulating import run_simulation
from edgefl_simulation.watching import watcher_for

__all__ = ["simulate"]

_EVALUATION = "Evaluation"
_WORK = "Where the work is done"
_DEVICES = "Devices and simulated time"
_RESULT = "What is kept and shown"
_CALLED = {"target": "cohort", "root_device": "root_rows"}
"""A server's target is the number of devices of a cohort here: it waits for all that it wants. An operator names a
root device, which has rows of its own; here these are drawn."""


def simulate(
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="A .tflite; or a .keras file or module:function to convert.")
    ],
    data: Annotated[str, typer.Option(help=f"{', '.join(NAMED)}; or {KINDS}.", rich_help_panel=DATA_PANEL)],
    devices: Devices = None,
    partition: Annotated[
        str,
        typer.Option(
            help=f"Who holds what: {', '.join(PARTITIONERS.names())}; as in dirichlet:0.5.", rich_help_panel=DATA_PANEL
        ),
    ] = "iid",
    held_out: HeldOut = 0.1,
    local_test: Annotated[
        float,
        typer.Option(
            metavar=SHARE, help="Share of its rows that a device keeps for tests, below 1.", rich_help_panel=DATA_PANEL
        ),
    ] = 0.0,
    owner: Annotated[
        str, typer.Option(help="The array or column that says whose each row is.", rich_help_panel=DATA_PANEL)
    ] = OWNER,
    feature_columns: FeatureColumns = "",
    target_column: TargetColumn = "",
    label: Annotated[
        str,
        typer.Option(
            help="The array that a partition by class goes by.", show_default="the target", rich_help_panel=DATA_PANEL
        ),
    ] = "",
    root_rows: Annotated[
        int,
        typer.Option(
            help="Rows of one more device, honest and asked in every round, for --rule fltrust.",
            min=0,
            rich_help_panel=RULE_PANEL,
        ),
    ] = 0,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="Folder for settings, rounds and weights.", rich_help_panel=_RESULT),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on where the folder is.", rich_help_panel=_RESULT)
    ] = False,
    until: Annotated[
        list[str] | None,
        typer.Option(
            metavar="METRIC=VALUE", help="End once it is reached; may be repeated.", rich_help_panel=_EVALUATION
        ),
    ] = None,
    evaluate_every: Annotated[
        int, typer.Option(help="Rounds between evaluations; 0: never.", min=0, rich_help_panel=_EVALUATION)
    ] = 1,
    evaluate_devices: Annotated[
        int | None,
        typer.Option(
            help="Devices that are asked each time.", min=0, show_default="the cohort", rich_help_panel=_EVALUATION
        ),
    ] = None,
    personalise: Annotated[
        int,
        typer.Option(
            help="Epochs of local training, to test devices before and after.", min=0, rich_help_panel=_EVALUATION
        ),
    ] = 0,
    personalise_steps: Annotated[
        int, typer.Option(help="Steps of it at most.", min=0, show_default="no limit", rich_help_panel=_EVALUATION)
    ] = 0,
    personalise_rate: Annotated[
        float | None, typer.Option(help="Learning rate of it.", show_default="the run's", rich_help_panel=_EVALUATION)
    ] = None,
    workers: Annotated[
        int,
        typer.Option(
            help="Processes that train; 1: this one.",
            min=0,
            max=MOST_WORKERS,
            show_default="one for each core",
            rich_help_panel=_WORK,
        ),
    ] = 0,
    engine: Annotated[
        str,
        typer.Option(
            help="local: this machine; ray: a Ray cluster; http: real devices of a real server, here.",
            rich_help_panel=_WORK,
        ),
    ] = "local",
    ray_address: Annotated[
        str,
        typer.Option(
            help="host:port of a cluster's head, or auto.",
            show_default="RAY_ADDRESS, else a new one on this machine",
            rich_help_panel=_WORK,
        ),
    ] = "",
    minimum_examples: Annotated[
        int, typer.Option(help="A device with fewer takes no part.", min=1, rich_help_panel=_DEVICES)
    ] = 2,
    profile: Annotated[
        str,
        typer.Option(
            help=f"Kinds of devices: {', '.join(SHIPPED)}, or a .toml.",
            show_default="all alike",
            rich_help_panel=_DEVICES,
        ),
    ] = "",
    step_seconds: Annotated[
        float, typer.Option(help="Simulated seconds of a step, without a profile.", rich_help_panel=_DEVICES)
    ] = Steady.step_seconds,
    overhead_seconds: Annotated[
        float, typer.Option(help="Simulated seconds of a task beside its steps, likewise.", rich_help_panel=_DEVICES)
    ] = Steady.overhead_seconds,
    drop_out: Annotated[
        float,
        typer.Option(
            metavar=SHARE, help="Share of tasks never heard of again, below 1, likewise.", rich_help_panel=_DEVICES
        ),
    ] = 0.0,
    runtime: Annotated[
        str, typer.Option(help=f"The interpreter: auto, {', '.join(CHOICES)}.", rich_help_panel=_WORK)
    ] = "auto",
    quiet: Annotated[
        bool, typer.Option("--quiet", help="Show nothing but the result.", rich_help_panel=_RESULT)
    ] = False,
    format: FormatOption = Format.text,
    **settings: Any,
) -> None:
    """Train with a fleet of emulated devices on this machine, by the code that real devices and servers run."""
    cohort = settings.pop("cohort")
    given = {name: value for name, value in settings.items() if value is not None}
    seed = given.get("seed", DEFAULT_SEED)
    watcher = watcher_for(not quiet)
    try:
        wanted = Simulation(
            model,
            data,
            settings={**given, "target": cohort, "seed": seed},
            division=Division(partition, devices or 0, held_out, local_test, label, seed, root_rows),
            pace=Steady(step_seconds, overhead_seconds, drop_out),
            owner=owner,
            minimum_examples=minimum_examples,
            evaluate_every=evaluate_every,
            evaluate_devices=evaluate_devices,
            personalise=_personalisation(personalise, personalise_steps, personalise_rate),
            until=dict(map(_bound, until or [])),
            workers=workers,
            runtime=runtime,
            features=listed(feature_columns),
            target=target_column,
            engine=engine,
            ray_address=ray_address,
            profile=profile_of(profile) if profile else None,
        )
        with _ended_by_signals():
            history = run_simulation(wanted, out, resume=resume, watcher=watcher)
    except SettingError as error:
        raise _typed(error.naming(lambda name: option_of(_CALLED.get(name, name)))) from error
    except InvalidSettingError as error:
        raise _typed(error) from error
    result = history.summary() | {"folder": None if out is None else str(out)}
    emit(result, format, lambda: _text(history))


_SHOWN = {"minimum": "the cohort", "seed": str(DEFAULT_SEED)}
_OTHERWISE = ("kind", "evaluate_cohort", "shown_from", "quantiles_from", "root_device")
"""Settings for which a simulation has options of its own."""
simulate = functools.partial(with_settings, called=_CALLED, shown=_SHOWN, without=_OTHERWISE)(simulate)


def _typed(error: InvalidSettingError) -> InvalidSettingError:
    """The same error for somebody who types: settings of a conversion are options."""
    return InvalidSettingError(error.message, hint=None if error.hint is None else converting_options(error.hint))


@contextlib.contextmanager
def _ended_by_signals() -> Iterator[None]:
    """Lets SIGTERM and a closed terminal end a simulation as Ctrl-C does: nothing is left in folders for a while."""
    heeded = [each for each in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(each) not in (signal.SIG_IGN, None)]

    def end(number: int, _: object) -> None:
        for each in heeded:
            signal.signal(each, signal.SIG_IGN)
        sys.exit(128 + number)

    before = {each: signal.signal(each, end) for each in heeded}
    try:
        yield
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)


def _personalisation(epochs: int, steps: int, learning_rate: float | None) -> Personalisation | None:
    if not (epochs or steps):
        if learning_rate is not None:
            raise InvalidSettingError("--personalise-rate has no meaning without --personalise or --personalise-steps.")
        return None
    return Personalisation(epochs, steps, learning_rate)


def _bound(text: str) -> tuple[str, float]:
    name, _, value = text.partition("=")
    try:
        return name, float(value)
    except ValueError:
        raise InvalidSettingError(f"--until expects METRIC=VALUE, as in accuracy=0.9, got {text!r:.80}.") from None


def _text(history: History) -> str:
    rounds = f"{len(history.rounds)} round{'s' if len(history.rounds) != 1 else ''}"
    lines = [f"{rounds}: {history.told()}" + (f" ({history.stopped})" if history.stopped else "")]
    if history.folder:
        lines.append(
            f"{history.folder}: rounds.jsonl, weights.npy, model.tflite; edgefl export {history.folder}/model.tflite "
            f"--weights {history.folder}/weights.npy -o trained.keras"
        )
    return "\n".join(lines)
