"""`edgefl.simulate`: a simulation as one call."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from edgefl.errors import InvalidSettingError
from edgefl_device_runtime.tasks import MINIMUM_EXAMPLES
from edgefl_server.aggregation import SettingError, run_settings
from edgefl_simulation.argument_kinds import check_kinds
from edgefl_simulation.data import OWNER
from edgefl_simulation.evaluating import Personalisation
from edgefl_simulation.history import History, Row
from edgefl_simulation.pace import Pace, Steady
from edgefl_simulation.partitioning import Partitioner
from edgefl_simulation.preparing import Division
from edgefl_simulation.profiles import FleetProfile, profile_of
from edgefl_simulation.scenario import DEFAULT_SEED, Simulation
from edgefl_simulation.simulating import run_simulation
from edgefl_simulation.watching import watcher_for

__all__ = ["simulate"]

_OTHER_NAMES = {"target": "cohort", "root_device": "root_rows"}
"""Settings of a run on a server that are arguments of a simulation by another name."""


def simulate(
    model: Any,
    data: Any,
    *,
    rounds: int,
    cohort: int,
    devices: int = 0,
    partition: str | Partitioner = "iid",
    strategy: str = "fedavg",
    seed: int = DEFAULT_SEED,
    held_out: float = 0.1,
    local_test: float = 0.0,
    label: str = "",
    root_rows: int = 0,
    owner: str = OWNER,
    feature_columns: Sequence[str] = (),
    target_column: str = "",
    pace: Pace | None = None,
    profile: str | Path | Mapping[str, Any] | FleetProfile | None = None,
    minimum_examples: int = MINIMUM_EXAMPLES,
    evaluate_every: int = 1,
    evaluate_devices: int | None = None,
    personalise: int | Personalisation = 0,
    until: Mapping[str, float] | None = None,
    workers: int = 0,
    engine: str = "local",
    ray_address: str = "",
    runtime: str = "auto",
    out: str | Path | None = None,
    resume: bool = False,
    verbose: bool | None = None,
    on_round: Callable[[Row], None] | None = None,
    **settings: Any,
) -> History:
    """Simulates a fleet of devices that train a model together, with the very code that real devices and servers run.

        history = edgefl.simulate(model, "digits", devices=20, partition="dirichlet:0.5", rounds=20, cohort=10)
        history.metric("accuracy")

    Args:
        model: a ``.tflite`` made by `edgefl convert`; or a ``.keras`` file, ``"module:function"`` or a Keras model,
            which is converted for what the strategy needs.
        data: ``"digits"``, ``"fashion-mnist"``, ``"smartwatch"``, ``"vowel"``; an ``.npz``, a folder of ``.npy``, a
            CSV or Parquet file; ``(x, y)`` or arrays by name; a `tf.data` or Hugging Face data set, a DataFrame.
        rounds: how many.
        cohort: outcomes that close a round.
        devices: how many there are; 0: as many as the partition itself says (a natural one).
        partition: which rows fall on which device: ``iid``, ``dirichlet:0.5``, ``pathological:2``, ``natural-id``, ….
        strategy: as `edgefl run create` has it.
        seed: of every choice.
        held_out: the share of rows that no device gets, for tests, where the data set has no such rows itself.
        local_test: the share of its rows that each device keeps for tests.
        label: the array that a partition by class goes by; by default the model's target.
        root_rows: rows that are drawn before all others are divided, for one more device, which is honest, is asked in
            every round, and by which ``rule="fltrust"`` judges the others; 0: there is none.
        owner: the array, or column, that says whose each row is.
        feature_columns: the columns, or arrays, that are the model's input, in this order; by default all but the
            target.
        target_column: the column, or array, that is the model's target; by default the one called ``y`` or ``label``,
            else the last column of a table.
        pace: when devices are there, and how long they take, in simulated seconds; an object like `Steady`.
        profile: the same, and attackers: ``"pi4"``, the path of a TOML file, or what would stand there.
        minimum_examples: a device with fewer takes no part.
        evaluate_every: so many rounds; 0: never.
        evaluate_devices: how many devices are asked how good the weights are for them; by default as many as a cohort.
        personalise: epochs that each of them trains by itself before it is tested once more, or a `Personalisation`.
        until: metrics on the held-out rows that end the run once one of them is reached: ``{"accuracy": 0.9}``.
        workers: processes that train; 0: one for each core, 1: this process itself. The results are the same bits.
        engine: where devices work: ``local``, on this machine; ``ray``, on a cluster; ``http``, as clients of a server.
        ray_address: ``host:port`` of the cluster's head, or ``auto``; by default RAY_ADDRESS, else a cluster of this
            machine that ends with the simulation.
        runtime: the interpreter, as `edgefl.TrainableModel` takes it.
        out: a folder for settings, a line each round, and weights.
        resume: go on where the folder is; the results are the same bits as without a break.
        verbose: show how it goes; by default where that is a terminal.
        on_round: called with the row of each round.
        settings: whatever else `edgefl run create` takes: ``epochs``, ``learning_rate``, ``server_learning_rate``, ….

    Raises:
        EdgeflError: see `run_simulation`.
    """
    check_kinds(simulate, locals())
    _check_names(settings)
    tuning = Personalisation(personalise) if isinstance(personalise, int) and personalise else personalise
    wanted = Simulation(
        model,
        data,
        settings={"rounds": int(rounds), "target": int(cohort), "strategy": strategy, "seed": int(seed), **settings},
        division=Division(partition, devices, held_out, local_test, label, seed, root_rows),
        pace=pace or Steady(),
        owner=owner,
        minimum_examples=minimum_examples,
        evaluate_every=evaluate_every,
        evaluate_devices=evaluate_devices,
        personalise=tuning or None,
        until=until or {},
        workers=workers,
        runtime=runtime,
        features=(feature_columns,) if isinstance(feature_columns, str) else tuple(feature_columns),
        target=target_column,
        engine=engine,
        ray_address=ray_address,
        profile=None if profile is None else profile_of(profile),
    )
    watcher = watcher_for(verbose, on_round)
    try:
        return run_simulation(wanted, None if out is None else Path(out), resume=resume, watcher=watcher)
    except SettingError as error:
        # It waits for all that it wants.
        raise error.naming(lambda name: _OTHER_NAMES.get(name, name)) from error


def _check_names(settings: Mapping[str, Any]) -> None:
    """Makes sure that each argument is a setting, of whatever strategy; which go together is looked at later.

    Raises:
        InvalidSettingError: one is none; the hint is the nearest.
    """
    own = set(inspect.signature(simulate).parameters) - {"settings"}
    known = {each.name for each in run_settings()} - _OTHER_NAMES.keys()
    for name in settings:
        if name not in known:
            near = [_OTHER_NAMES[name]] if name in _OTHER_NAMES else get_close_matches(name, sorted(known | own), n=1)
            raise InvalidSettingError(
                f"edgefl.simulate has no argument {name!r:.80}.", hint=f"Did you mean {near[0]}?" if near else None
            )
