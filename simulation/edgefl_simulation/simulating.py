"""A fleet on this machine, from a model and data to trained weights."""

from __future__ import annotations

import contextlib
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from edgefl.errors import EdgeflError, RunError, StorageError
from edgefl.hashing import sha256
from edgefl.model_file import ModelFile
from edgefl_server.aggregation import (
    AUTO,
    Blob,
    Expectation,
    ModelLimits,
    RunSettings,
    SettingError,
    StrategyState,
    choice_text,
    is_better,
    schedule_for,
    settle,
    strategy_for,
)
from edgefl_simulation.coordinator import Coordinator
from edgefl_simulation.data import load_data
from edgefl_simulation.engines import Setup, start_engine
from edgefl_simulation.evaluating import Evaluator
from edgefl_simulation.freed_memory import give_back
from edgefl_simulation.history import History, Row, evaluated, row_of
from edgefl_simulation.leading import Leader, check_engine, leader_of
from edgefl_simulation.memories import Memories
from edgefl_simulation.model_sources import Wanted, model_file
from edgefl_simulation.plans import Checkpoint, Plan
from edgefl_simulation.preparing import Prepared, fingerprint, prepare_fleet
from edgefl_simulation.profiles import Deployment, cost_of
from edgefl_simulation.run_folder import RunFolder
from edgefl_simulation.scenario import (
    DEFAULT_SEED,
    Simulation,
    check_cohort,
    check_counts,
    check_personalised,
    check_profile,
    check_until,
    written_down,
)
from edgefl_simulation.watching import Silent, Watcher

__all__ = ["run_simulation"]


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
    if resume and folder is None:
        raise SettingError("{resume} goes on where a folder is, and none is named.", hint="Give {out}.")
    check_counts(wanted)
    check_profile(wanted)
    settings = RunSettings.of(**wanted.run_settings)
    settings = settings if settings.seed is not None else replace(settings, seed=DEFAULT_SEED)
    # Before anything is converted for what will be refused.
    settings.require_meaning()
    schedule_for(settings)
    model = model_file(wanted.model, Wanted(settings.strategy, settings.batch_size), watcher.say)
    file = ModelFile(model)
    file.verify()
    manifest = file.manifest
    chosen, settings = settings.codec, settle(settings, manifest)
    if chosen == AUTO:
        watcher.say(choice_text(settings.codec, manifest.layout.weight_size))
    check_engine(wanted.engine, wanted.ray_address, wanted.pace, wanted.profile, settings)
    check_personalised(wanted)
    check_until(wanted.until, manifest)
    data = load_data(wanted.data, wanted.owner, features=wanted.features, target=wanted.target)
    with contextlib.ExitStack() as stack:
        document = written_down(wanted, settings, manifest, sha256(model)) if folder else {}
        if folder is None:
            kept = None
            place = RunFolder(Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="edgefl-"))), {}, False)
        else:
            kept = place = RunFolder(folder, {**document, "data": fingerprint(data)}, resume)
        if resume and place.is_new:
            watcher.say(f"{folder} holds nothing to go on from: the simulation begins anew.")
        stack.callback(place.close)
        stack.callback(place.abandon)
        place.keep_model(model)
        stack.callback(place.clear_rows)
        place.clear_rows()
        prepared = prepare_fleet(data, manifest, wanted.division, place.tables)
        for remark in prepared.remarks:
            watcher.say(remark)
        del data
        give_back()
        check_cohort(wanted, settings, len(prepared.fleet) - bool(wanted.division.root_rows))
        layout, limits = manifest.layout, ModelLimits.of(manifest)
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
                limits=limits.around_training() if settings.local_test else limits,
            ),
            wanted.runtime,
        )
        initial = strategy_for(settings).init(file.initial_weights(), layout.weight_size)
        blob, pace = Blob(sha256(model), len(model)), wanted.pace
        plan = Plan(manifest, blob, settings, prepared.fleet, pace, wanted.minimum_examples)
        if wanted.profile is not None:
            names = prepared.fleet.names if plan.root is None else prepared.fleet.names[: plan.devices]
            deployed = Deployment(wanted.profile, names, settings.effective_seed, cost_of(file), pace)
            plan = replace(plan, pace=deployed, attack=deployed.attack)
        plan = plan.attended()
        del file
        engine = start_engine(wanted.engine, setup, wanted.workers, settings.cohort_size, wanted.ray_address)
        stack.callback(engine.close)
        stack.callback(watcher.stop)
        lead = partial(leader_of, wanted.engine, plan, engine, setup, place.folder, wanted.workers)
        running = _Running(wanted, plan, prepared, engine, lead, kept, place, watcher)
        return running.run(initial, model, stack)


class _Running:
    """A simulation that is under way."""

    def __init__(
        self,
        wanted: Simulation,
        plan: Plan,
        prepared: Prepared,
        engine: Any,
        lead: Callable[[Checkpoint], Leader],
        kept: RunFolder | None,
        place: RunFolder,
        watcher: Watcher,
    ) -> None:
        self._wanted, self._plan, self._engine, self._lead = wanted, plan, engine, lead
        self._kept, self._place, self._watcher = kept, place, watcher
        asked = plan.settings.target if wanted.evaluate_devices is None else wanted.evaluate_devices
        self._evaluator = Evaluator(plan, engine, prepared.held_out, asked, wanted.personalise)
        self._trained, self._spent = 0, 0.0

    def run(self, initial: StrategyState, model: bytes, stack: contextlib.ExitStack) -> History:
        """Goes on to the end."""
        manifest, rounds = self._plan.manifest, self._plan.settings.rounds
        restored = self._kept.restore(initial) if self._kept else None
        checkpoint, rows = restored or (Checkpoint(initial), [])
        Memories(self._place.memories).check(checkpoint.remembered)
        coordinator = self._lead(checkpoint)
        stack.callback(coordinator.close)
        folder = self._kept.folder if self._kept else None
        history = History(manifest, checkpoint.state.weights, model, rows, folder=folder)
        self._watcher.begin(self._plan.devices, rounds, len(rows))
        if self._wanted.evaluate_every:
            # Of the first weights, also where they are long gone: they are in the model file.
            first = coordinator if not rows else None
            history.initial = self._initial(first, initial)
        error = None
        if rows and (reached := self._reached(rows[-1])):
            history.stopped = reached
        elif len(rows) < rounds:
            error = self._go_on(coordinator, history)
        elif self._kept and (why := self._kept.failed()):
            error = RunError(why)
        history.failed = "" if error is None else " ".join(filter(None, (error.message, error.hint)))
        history.weights = coordinator.state.weights
        history.devices_per_second = self._trained / self._spent if self._spent else 0.0
        if self._kept:
            try:
                self._kept.finish(history.weights, history.summary(), history.table())
            except StorageError:
                if error is None:  # where the disk is full, what ended the run says so already
                    raise
        self._watcher.end(history)
        if error is not None:
            raise error
        coordinator.discard()
        return history

    def _go_on(self, coordinator: Leader, history: History) -> EdgeflError | None:
        """Simulates to the end; the error that ended it, which is kept with what there is by then, or None."""
        try:
            self._simulate(coordinator, history)
        except EdgeflError as error:
            return error
        return None

    def _simulate(self, coordinator: Leader, history: History) -> None:
        """Simulates round after round.

        Raises:
            RunError: the run failed.
            EdgeflError: what the engine or the folder raises.
        """
        coordinator.begin()
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
            reached = self._reached(row) or done.enough
            if self._kept:
                self._kept.add_round(row)
            self._keep(coordinator, at_once=done.over or bool(reached))
            self._watcher.round(row)
            if done.failed:
                raise RunError(f"The run failed: {done.failed}.", hint=_errors(history.rounds))
            if reached:
                history.stopped = reached
                return
            began = time.monotonic()

    def _keep(self, coordinator: Leader, *, at_once: bool) -> None:
        """Notes where to go on from, and forgets what nobody will ask for again."""
        checkpoint = coordinator.checkpoint()
        if checkpoint is None:
            return
        written = self._kept is None or self._kept.keep(checkpoint, at_once=at_once)
        if written and checkpoint.folded:
            Memories(self._place.memories).keep_only(checkpoint.to_keep)

    def _initial(self, coordinator: Leader | None, initial: StrategyState) -> Row:
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


def _errors(rounds: Sequence[Row]) -> str | None:
    """Tells what devices said in the latest round, for whoever has to find out why it failed."""
    said = rounds[-1].get("errors", []) if rounds else []
    return f"Devices said: {' / '.join(said[:3])}" if said else None
