"""Replays a run from its log: the pure functions again, to the last bit of its weights.

What became of a run follows from its settings, its first weights, what devices did with their tasks, and a log: which
task began from which version, and in which fold its update was merged, in which order. Nothing else decides: no clock,
no crash, no order of arrival that is not in the log.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgefl.errors import RunError
from edgefl.hashing import weights_hash
from edgefl.manifest import ModelManifest
from edgefl.wire.messages import ExtraVector, Outcome, Task
from edgefl_server.aggregation.broadcast import broadcast, without_residual
from edgefl_server.aggregation.folding import Believed, Folded, fold
from edgefl_server.aggregation.limits import ModelLimits
from edgefl_server.aggregation.root_device import apart, root_device_of
from edgefl_server.aggregation.schedules import Assignment, schedule_for
from edgefl_server.aggregation.seeds import fold_seed
from edgefl_server.aggregation.settings import RunSettings, strategy_for
from edgefl_server.aggregation.staleness import Staleness
from edgefl_server.aggregation.strategies import Cohort, StrategyState
from edgefl_server.aggregation.tasks import Blob, TaskSource, named_vectors, task_for
from edgefl_server.aggregation.updates import Contribution, Update, in_order
from edgefl_server.aggregation.validation import Expectation, validate

__all__ = ["LoggedFold", "LoggedUpdate", "RunLog", "replay"]

Perform = Callable[[Task, Mapping[str, NDArray[np.float32]]], Outcome]
"""A device's work again: a task, and the vectors that it starts from (``weights``, and slots by name)."""


@dataclass(frozen=True)
class LoggedUpdate:
    """The facts that a log has of an update that was merged.

    Attributes:
        task_id: its task's.
        device: who sent it.
        cohort: the number of the cohort.
        version: of the weights that it began from.
        attempt: see `Assignment`.
        turn: likewise.
        continues: the task from the end of which its device went on; empty: none.
        accepted: its place in the committed order of acceptance.
    """

    task_id: str
    device: str
    cohort: int
    version: int
    attempt: int
    turn: int
    continues: str
    accepted: int


@dataclass(frozen=True)
class LoggedFold:
    """A fold that made a version.

    Attributes:
        number: its number.
        version: of the weights that it was merged into.
        makes: the version that it made.
        enrolled: devices of the population then.
        weights_hash: of the version that it made.
        updates: all that were merged.
    """

    number: int
    version: int
    makes: int
    enrolled: int
    weights_hash: str
    updates: tuple[LoggedUpdate, ...]


@dataclass(frozen=True)
class RunLog:
    """The log of a run.

    Attributes:
        run: its id.
        population: whose devices train.
        settings: its own.
        model: its file.
        graph_hash: of the file's graph.
        layout_hash: of its parameters.
        folds: those that made a version, in order.
        rollbacks: versions that are earlier ones again, by their numbers.
    """

    run: str
    population: str
    settings: RunSettings
    model: Blob
    graph_hash: str
    layout_hash: str
    folds: tuple[LoggedFold, ...]
    rollbacks: Mapping[int, int] = field(default_factory=dict)

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> RunLog:
        """Reads a log as ``edgefl run log --format json`` writes it.

        Raises:
            RunError: it is none.
        """
        try:
            return cls(
                document["run"],
                document["population"],
                RunSettings.from_json(document["settings"]),
                Blob(document["model_hash"], document["model_bytes"]),
                document["graph_hash"],
                document["layout_hash"],
                tuple(_fold(each) for each in document["folds"]),
                {int(version): earlier for version, earlier in document["rollbacks"].items()},
            )
        except (KeyError, TypeError) as error:
            raise RunError(
                f"The log of a run cannot be read: {type(error).__name__}: {error}.",
                hint="`edgefl run log RUN --format json` writes one.",
            ) from error


def _fold(entry: Mapping[str, Any]) -> LoggedFold:
    fields = {name: value for name, value in entry.items() if name != "updates"}
    return LoggedFold(**fields, updates=tuple(LoggedUpdate(**each) for each in entry["updates"]))


def replay(log: RunLog, manifest: ModelManifest, initial: NDArray[np.float32], perform: Perform) -> Iterator[Folded]:
    """Does a run again, fold by fold.

    Args:
        log: its log.
        manifest: of its model file.
        initial: its first weights, float32 ``[layout.size]``.
        perform: does a device's work.

    Yields:
        What each fold leaves.

    Raises:
        RunError: a fold does not make the weights that the log says.
        OutcomeRefusedError: what `perform` returns does not fit its task.
    """
    settings, strategy = log.settings, strategy_for(log.settings)
    layout = manifest.layout
    states = {0: strategy.init(initial, layout.weight_size)}
    believed = Believed(
        settings.max_examples,
        settings.max_weight_ratio,
        ModelLimits.of(manifest),
        manifest.metrics,
        Staleness.in_run(settings, settings.schedule),
    )
    by_acceptance = schedule_for(settings).by_acceptance

    def state_of(version: int) -> StrategyState:
        while version in log.rollbacks:
            version = log.rollbacks[version]
        return states[version]

    def contribution(each: LoggedUpdate, into: LoggedFold) -> Contribution:
        state = state_of(each.version)
        task = _task(log, each, into, state)
        vectors = {"weights": state.weights, **{each.name: state.slots[each.name] for each in task.extra_vectors}}
        outcome = perform(task, vectors)
        expected = Expectation(
            task.task_id,
            task.base_weights_hash,
            task.layout_hash,
            layout.weight_size,
            layout.statistic_size,
            sections=strategy.demand.sections,
        )
        update = validate(outcome, expected)
        if update is None:
            raise RunError(f"The work for task {each.task_id} leaves no update, and the log has one.")
        begun: Update = update.begun(each.version, newest=into.version)
        order = each.accepted if by_acceptance else 0
        return Contribution(
            each.task_id, outcome.num_examples, lambda: begun, order, begun.staleness, lambda: state.weights
        )

    for each in log.folds:
        fleet, rooted = apart(each.updates, root_device_of(settings), lambda update: update.device)
        contributions: Sequence[Contribution] = in_order(contribution(update, each) for update in fleet)
        root = None if rooted is None else contribution(rooted, each).read()
        seed = fold_seed(settings.effective_seed, each.number)
        before, cohort = state_of(each.version), Cohort(each.enrolled, seed, root)
        folded = fold(strategy, without_residual(before), contributions, believed, cohort)
        folded, _ = broadcast(settings, before, folded, each.makes)
        found = weights_hash(folded.state.weights)
        if found != each.weights_hash:
            raise RunError(
                f"Fold {each.number} of run {log.run} makes weights with the hash {found}, expected "
                f"{each.weights_hash}.",
                hint="Devices' data, their runtime or the processor's instructions are not those of then.",
            )
        states[each.makes] = folded.state
        yield folded


def _task(log: RunLog, each: LoggedUpdate, into: LoggedFold, state: StrategyState) -> Task:
    settings, strategy = log.settings, strategy_for(log.settings)
    hashes = {name: weights_hash(vector) for name, vector in state.slots.items()}
    vectors = named_vectors(strategy.demand, hashes)
    source = TaskSource(
        log.population,
        log.run,
        each.version,
        each.cohort,
        into.number,
        log.model,
        log.graph_hash,
        log.layout_hash,
        Blob(weights_hash(state.weights), state.weights.nbytes),
        tuple(ExtraVector(name, digest, state.slots[name].nbytes) for name, digest in vectors.items()),
    )
    handed_out = Assignment(each.device, each.attempt, 0.0, 0.0, 0.0, version=each.version, turn=each.turn)
    seconds = settings.effective_task_seconds
    task = task_for(source, settings, strategy.demand, handed_out, seconds, each.continues)
    if task.task_id != each.task_id:
        raise RunError(f"The log names the task {each.task_id}, expected {task.task_id}.")
    return task
