"""`simulate`: a fleet on this machine, from a model and data to trained weights."""

from __future__ import annotations

import contextlib
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from edgefl.errors import InvalidSettingError, RunError
from edgefl.hashing import sha256
from edgefl.manifest import ModelManifest
from edgefl.model_file import ModelFile
from edgefl_device_runtime.tasks import MINIMUM_EXAMPLES
from edgefl_device_runtime.training.threads import physical_cores
from edgefl_server.aggregation import (
    Blob,
    Expectation,
    ModelLimits,
    RunSettings,
    SettingError,
    StrategyState,
    settle,
    strategy_for,
)
from edgefl_simulation.coordinator import Coordinator
from edgefl_simulation.data import OWNER, load_data
from edgefl_simulation.engines import Setup, start_engine
from edgefl_simulation.evaluating import Evaluator, is_better
from edgefl_simulation.history import History, Row, evaluated, row_of
from edgefl_simulation.memories import Memories
from edgefl_simulation.model_sources import Wanted, model_file
from edgefl_simulation.pace import Pace, Steady
from edgefl_simulation.partitioning import Partitioner
from edgefl_simulation.plans import Checkpoint, Plan
from edgefl_simulation.preparing import Division, Prepared, fingerprint, prepare_fleet
from edgefl_simulation.profiles import Deployment, FleetProfile, check_pace, cost_of, profile_of
from edgefl_simulation.run_folder import RunFolder
from edgefl_simulation.watching import Silent, Watcher, watcher_for

__all__ = ["DEFAULT_SEED", "Simulation", "run_simulation", "simulate"]

DEFAULT_SEED = 1
"""A simulation repeats itself unless it is told another one."""


@dataclass(frozen=True)
class Simulation:
    """The settings of a simulation, beside the run's own settings.

    Attributes:
        model: as `model_file` takes it.
        data: as `load_data` takes it.
        settings: of the run and of its strategy, as `RunSettings.of` takes them; ``target`` is the cohort.
        division: how rows fall on devices.
        pace: when devices are there, and how long they take, in simulated seconds, where no profile says it.
        owner: the array, or column, that says whose each row is.
        minimum_examples: a device with fewer takes no part.
        evaluate_every: so many rounds; the last one is evaluated in any case.
        evaluate_devices: how many devices are asked how good the weights are for them; None: as many as a cohort has.
        until: metrics on the held-out rows that end the run once one of them is reached.
        workers: processes that train; 0: one for each core. One is this process itself.
        runtime: the interpreter, as `TrainableModel` takes it.
        profile: what kinds of devices there are, and attackers among them.
    """

    model: Any
    data: Any
    settings: Mapping[str, Any]
    division: Division = field(default_factory=Division)
    pace: Pace = field(default_factory=Steady)
    owner: str = OWNER
    minimum_examples: int = MINIMUM_EXAMPLES
    evaluate_every: int = 1
    evaluate_devices: int | None = None
    until: Mapping[str, float] = field(default_factory=dict)
    workers: int = 0
    runtime: str = "auto"
    profile: FleetProfile | None = None


def run_simulation(
    wanted: Simulation, folder: Path | None = None, *, resume: bool = False, watcher: Watcher | None = None
) -> History:
    """Simulates a fleet.

    Args:
        wanted: what.
        folder: for settings, a line each round, weights and where to go on from; None: nothing is kept.
        resume: go on where the folder is.
        watcher: told how it goes.

    Raises:
        SettingError, InvalidSettingError: a setting that is none, or contradicts another, the model or the data.
        DataError: the data cannot be read, or does not fit the model.
        RunError: the run failed, as it would on a server.
        EdgeflError: what the conversion, the model or a folder raises.
    """
    watcher = watcher or Silent()
    if wanted.workers < 0 or wanted.evaluate_every < 0:
        raise InvalidSettingError("The number of workers, and of rounds between evaluations, expects at least 0.")
    check_pace(wanted.profile, wanted.pace)
    settings = RunSettings.of(**wanted.settings)
    settings = settings if settings.seed else replace(settings, seed=DEFAULT_SEED)
    model = model_file(wanted.model, Wanted(settings.strategy, settings.batch_size), watcher.say)
    file = ModelFile(model)
    file.verify()
    manifest = file.manifest
    settings = settle(settings, manifest)
    _check_until(wanted.until, manifest)
    data = load_data(wanted.data, wanted.owner)
    with contextlib.ExitStack() as stack:
        document = _document(wanted, settings, sha256(model)) if folder else {}
        if folder is None:
            kept = None
            place = RunFolder(Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="edgefl-"))), {}, False)
        else:
            kept = place = RunFolder(folder, {**document, "data": fingerprint(data)}, resume)
        place.keep_model(model)
        stack.callback(place.clear_rows)
        place.clear_rows()
        prepared = prepare_fleet(data, manifest, wanted.division, place.tables)
        del data
        _check_cohort(settings, len(prepared.fleet))
        layout = manifest.layout
        setup = Setup(
            place.model,
            place.tables,
            place.memories,
            Expectation(
                "",
                "",
                manifest.layout_hash,
                layout.weight_size,
                layout.statistic_size,
                settings.norm_bound,
                limits=ModelLimits.of(manifest),
            ),
            wanted.runtime,
        )
        initial = strategy_for(settings).init(file.initial_weights(), layout.weight_size)
        blob, pace = Blob(sha256(model), len(model)), wanted.pace
        plan = Plan(manifest, blob, settings, prepared.fleet, pace, wanted.minimum_examples)
        if wanted.profile is not None:
            deployed = Deployment(wanted.profile, prepared.fleet.names, settings.seed, cost_of(file), pace)
            plan = replace(plan, pace=deployed, attack=deployed.attack)
        del file
        workers = wanted.workers or min(physical_cores(), settings.cohort_size)
        engine = start_engine(setup, workers)
        stack.callback(engine.close)
        stack.callback(watcher.stop)
        running = _Running(wanted, plan, prepared, engine, kept, place, watcher)
        return running.run(initial, model)


class _Running:
    """A simulation that is under way."""

    def __init__(
        self,
        wanted: Simulation,
        plan: Plan,
        prepared: Prepared,
        engine: Any,
        kept: RunFolder | None,
        place: RunFolder,
        watcher: Watcher,
    ) -> None:
        self._wanted, self._plan, self._engine = wanted, plan, engine
        self._kept, self._place, self._watcher = kept, place, watcher
        asked = plan.settings.target if wanted.evaluate_devices is None else wanted.evaluate_devices
        self._evaluator = Evaluator(plan.manifest, engine, plan.fleet, prepared.held_out, asked, plan.settings.seed)
        self._trained, self._spent = 0, 0.0

    def run(self, initial: StrategyState, model: bytes) -> History:
        """Goes on to the end."""
        manifest, rounds = self._plan.manifest, self._plan.settings.rounds
        restored = self._kept.restore(initial.weight_size) if self._kept else None
        checkpoint, rows = restored or (Checkpoint(initial), [])
        coordinator = Coordinator(self._plan, self._engine, checkpoint)
        folder = self._kept.folder if self._kept else None
        history = History(manifest, checkpoint.state.weights, model, rows, folder=folder)
        self._watcher.begin(len(self._plan.fleet), rounds, len(rows))
        if self._wanted.evaluate_every:
            # Of the first weights, also where they are long gone: they are in the model file.
            first = coordinator if not rows else None
            history.initial = self._initial(first, initial)
        failed = ""
        if rows and (reached := self._reached(rows[-1])):
            history.stopped = reached
        elif len(rows) < rounds:
            failed = self._go_on(coordinator, history)
        history.weights = coordinator.state.weights
        history.devices_per_second = self._trained / self._spent if self._spent else 0.0
        if self._kept:
            self._kept.finish(history.weights, history.summary())
        self._watcher.end(history)
        if failed:
            raise RunError(f"The run failed: {failed}.", hint=_errors(history.rounds))
        return history

    def _go_on(self, coordinator: Coordinator, history: History) -> str:
        """Simulates round after round; why the run failed, empty where it did not."""
        began = time.monotonic()
        for done in coordinator.rounds():
            seconds = time.monotonic() - began
            self._trained += done.outcomes.get("done", 0)
            self._spent += seconds
            every = self._wanted.evaluate_every
            evaluation = None
            if done.folded is not None and every and (done.fold % every == 0 or done.over):
                evaluation = self._evaluator.evaluate(coordinator.source, coordinator.base, coordinator.folded)
            row = row_of(done, self._plan.manifest, evaluation, seconds)
            history.rounds.append(row)
            reached = self._reached(row)
            if self._kept:
                self._kept.add_round(row)
            self._keep(coordinator, at_once=done.over or bool(reached))
            self._watcher.round(row)
            if done.failed:
                return done.failed
            if reached:
                history.stopped = reached
                return ""
            began = time.monotonic()
        return ""

    def _keep(self, coordinator: Coordinator, *, at_once: bool) -> None:
        """Notes where to go on from, and forgets what nobody will ask for again."""
        checkpoint = coordinator.checkpoint()
        if checkpoint is None:
            return
        written = self._kept is None or self._kept.keep(checkpoint, at_once=at_once)
        if written and checkpoint.folded:
            Memories(self._place.memories).keep_only(checkpoint.folded.values())

    def _initial(self, coordinator: Coordinator | None, initial: StrategyState) -> Row:
        if coordinator is not None:
            return evaluated(self._evaluator.evaluate(coordinator.source, coordinator.base, {}))
        first = Coordinator(self._plan, self._engine, Checkpoint(initial))
        found = self._evaluator.evaluate(first.source, first.base, {})
        self._engine.retire(first.base)
        return evaluated(found)

    def _reached(self, row: Row) -> str:
        """Names the bound that a round has reached; empty: none."""
        central = row.get("central", {})
        for name, bound in self._wanted.until.items():
            if name in central and is_better(name, central[name], bound):
                return f"{name} reached {bound:g}"
        return ""


def _check_cohort(settings: RunSettings, devices: int) -> None:
    if settings.target > devices:
        raise InvalidSettingError(
            f"The cohort has {settings.target} devices, and the fleet {devices}.",
            hint="Take a smaller cohort, or more devices.",
        )


def _check_until(until: Mapping[str, float], manifest: ModelManifest) -> None:
    known = ["loss", *(metric.name for metric in manifest.metrics)]
    for name in until:
        if name not in known:
            raise InvalidSettingError(f"The model has no metric {name!r} to reach a value; it has {', '.join(known)}.")


def _document(wanted: Simulation, settings: RunSettings, model: str) -> dict[str, Any]:
    """All that the results follow from, as plain values, but for the data itself."""
    division, run = asdict(replace(wanted.division, partition="")), settings.to_json()
    return {
        **run,
        "cohort": run["target"],
        "model": model,
        **division,
        "partition": str(wanted.division.partition),
        "pace": str(wanted.pace),
        "profile": None if wanted.profile is None else wanted.profile.to_json(),
        "owner": wanted.owner,
        "minimum_examples": wanted.minimum_examples,
        "evaluate_every": wanted.evaluate_every,
        "evaluate_devices": wanted.evaluate_devices,
        "until": dict(wanted.until),
    }


def _errors(rounds: Sequence[Row]) -> str | None:
    """Tells what devices said in the latest round, for whoever has to find out why it failed."""
    said = rounds[-1].get("errors", []) if rounds else []
    return f"Devices said: {' / '.join(said[:3])}" if said else None


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
    owner: str = OWNER,
    pace: Pace | None = None,
    profile: str | Path | Mapping[str, Any] | FleetProfile | None = None,
    minimum_examples: int = MINIMUM_EXAMPLES,
    evaluate_every: int = 1,
    evaluate_devices: int | None = None,
    until: Mapping[str, float] | None = None,
    workers: int = 0,
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
        data: ``"digits"``, ``"fashion-mnist"``, ``"smartwatch"``; an ``.npz``, a folder of ``.npy``, a CSV; ``(x, y)``
            or arrays by name.
        rounds: how many.
        cohort: outcomes that close a round.
        devices: how many there are; 0: as many as the partition itself says (a natural one).
        partition: which rows fall on which device: ``iid``, ``dirichlet:0.5``, ``pathological:2``, ``natural-id``, ….
        strategy: as `edgefl run create` has it.
        seed: of every choice; not 0.
        held_out: the share of rows that no device gets, for tests, where the data set has no such rows itself.
        local_test: the share of its rows that each device keeps for tests.
        label: the array that a partition by class goes by; by default the model's target.
        owner: the array, or column, that says whose each row is.
        pace: when devices are there, and how long they take, in simulated seconds; an object like `Steady`.
        profile: the same, and attackers: ``"pi4"``, the path of a TOML file, or what would stand there.
        minimum_examples: a device with fewer takes no part.
        evaluate_every: so many rounds; 0: never.
        evaluate_devices: how many devices are asked how good the weights are for them; by default as many as a cohort.
        until: metrics on the held-out rows that end the run once one of them is reached: ``{"accuracy": 0.9}``.
        workers: processes that train; 0: one for each core, 1: this process itself. The results are the same bits.
        runtime: the interpreter, as `edgefl.TrainableModel` takes it.
        out: a folder for settings, a line each round, and weights.
        resume: go on where the folder is; the results are the same bits as without a break.
        verbose: show how it goes; by default where that is a terminal.
        on_round: called with the row of each round.
        settings: whatever else `edgefl run create` takes: ``epochs``, ``learning_rate``, ``server_learning_rate``, ….

    Raises:
        EdgeflError: see `run_simulation`.
    """
    wanted = Simulation(
        model,
        data,
        {"rounds": rounds, "target": cohort, "strategy": strategy, "seed": seed, **settings},
        Division(partition, devices, held_out, local_test, label, seed),
        pace or Steady(),
        owner,
        minimum_examples,
        evaluate_every,
        evaluate_devices,
        until or {},
        workers,
        runtime,
        None if profile is None else profile_of(profile),
    )
    watcher = watcher_for(verbose, on_round)
    try:
        return run_simulation(wanted, None if out is None else Path(out), resume=resume, watcher=watcher)
    except SettingError as error:
        # What a server calls a target is the cohort here: it waits for all that it wants.
        raise error.naming(lambda name: "cohort" if name == "target" else name) from error
