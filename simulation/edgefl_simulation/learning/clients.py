"""The work of clients, one after the other: a task each, done by the function that devices call."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgefl.errors import DataError, EdgeflError, RunError, RuntimeFailure, first_line
from edgefl.hashing import weights_hash
from edgefl.wire.messages import OutcomeStatus, Reason, SectionCodec, Task, TaskKind
from edgefl_device_runtime.tasks import Received, TaskDeclinedError, TaskResult, perform
from edgefl_device_runtime.training import TrainableModel
from edgefl_server.aggregation import (
    Assignment,
    Blob,
    Demand,
    RunSettings,
    TaskSource,
    Update,
    finalise,
    sum_states,
    task_for,
    task_seed,
    validate,
)
from edgefl_simulation.engines.tuning import perform_tuned
from edgefl_simulation.evaluating import Personalisation
from edgefl_simulation.fleet import device_ids, device_names
from edgefl_simulation.learning.batches import ClientData, client_data
from edgefl_simulation.learning.keras_models import Ready, ReadyModels

__all__ = ["Clients", "Sums", "listed", "of_client", "read"]

_POPULATION, _RUN = "clients", "learning"
Vector = NDArray[np.float32]
Sums = dict[str, list[float]]


@dataclass(frozen=True)
class Clients:
    """Does what clients do with weights of one round.

    Attributes:
        models: of whose files.
        weights: that they start from, float32 ``[layout.size]``.
        round: how many rounds are behind these.
        settings: of the clients' training.
    """

    models: ReadyModels
    weights: Vector
    round: int
    settings: RunSettings

    def update(self, name: str, data: ClientData) -> Update | None:
        """Trains.

        Args:
            name: the client's.
            data: on what.

        Returns:
            What it changes; None where training diverged.

        Raises:
            EdgeflError: it cannot be trained on.
        """
        ready = self.models.for_client(data)
        assignment = Assignment.of(name, None, assigned_at=0, ends_at=0, leased_until=0, version=self.round)
        task = task_for(self._source(ready), self.settings, Demand(), assignment, 1.0)
        ready.trainer.batches = data.batches
        result = perform(task, ready.trainer, Received(self.weights), data.arrays, minimum_examples=1)
        if result.outcome.reason == Reason.DIVERGED:
            return None
        _check(result)
        expected = replace(
            ready.expected,
            task_id=task.task_id,
            base_weights_hash=task.base_weights_hash,
            sections=tuple(each.section for each in task.codecs),
            codecs=task.codecs,
        )
        return validate(result.outcome, expected)

    def evaluate(self, name: str, data: ClientData, sums: Sums | None = None) -> Sums:
        """Evaluates.

        Args:
            name: the client's.
            data: on what.
            sums: of the metrics' states of clients before.

        Returns:
            The sums with this client's states.

        Raises:
            EdgeflError: it cannot be evaluated on.
        """
        ready = self.models.usual
        task = self._evaluation(ready, name)
        result = perform(task, ready.trainer, Received(self.weights), data.arrays, minimum_examples=1)
        return self._added(result, sums)

    def evaluate_tuned(self, name: str, training: ClientData, data: ClientData, how: Personalisation) -> Sums:
        """Trains, and evaluates what came of it.

        Args:
            name: the client's.
            training: on what it trains.
            data: on what it is evaluated.
            how: the training.

        Raises:
            EdgeflError: it cannot be trained or evaluated on.
        """
        ready = self.models.for_client(training)
        task = self._evaluation(ready, f"{name}-tuned")
        tuning = replace(
            task,
            task_id=f"{task.task_id}-training",
            kind=TaskKind.TRAIN,
            seed=task_seed(self.settings.effective_seed, self.round, f"{name} personalised"),
            epochs=how.passes,
            max_steps=how.max_steps,
            learning_rate=self.settings.learning_rate if how.learning_rate is None else how.learning_rate,
            codecs=(SectionCodec("delta", "float32", 0), SectionCodec("statistics", "float32", 0)),
        )
        ready.trainer.batches = training.batches
        return self._added(perform_tuned(task, tuning, ready.trainer, self.weights, training.arrays, data.arrays, {}))

    def model(self) -> TrainableModel:
        """The model with these weights and a fresh optimizer, for functions of a user's own; it is always the same."""
        trainer = self.models.usual.trainer
        trainer.start(self.weights, {}, None)
        return trainer.model

    def values(self, sums: Sums) -> dict[str, float]:
        """The metrics of sums of states, ``loss`` first; NaN where there is nothing to compute them from."""
        metrics = self.models.manifest.metrics
        found = finalise(sums, metrics)
        return {name: found.get(name, float("nan")) for name in ("loss", *(metric.name for metric in metrics))}

    def _added(self, result: TaskResult, sums: Sums | None = None) -> Sums:
        _check(result)
        ready = self.models.usual
        assert ready.expected.limits is not None
        states = ready.expected.limits.states
        return sum_states(sums or {}, result.outcome.metrics, ready.manifest.metrics, states)

    def _source(self, ready: Ready) -> TaskSource:
        manifest = ready.manifest
        base = Blob(weights_hash(self.weights), self.weights.nbytes)
        number = self.round + 1
        return TaskSource(
            _POPULATION,
            _RUN,
            self.round,
            number,
            number,
            ready.file,
            manifest.graph_hash,
            manifest.layout_hash,
            base,
        )

    def _evaluation(self, ready: Ready, who: str) -> Task:
        source = self._source(ready)
        return Task(
            population=source.population,
            run=source.run,
            version=source.version,
            task_id=f"{source.run}-evaluation-{source.version}-{who}",
            model_hash=source.model.sha256,
            graph_hash=source.graph_hash,
            layout_hash=source.layout_hash,
            base_weights_hash=source.base.sha256,
            kind=TaskKind.EVALUATE,
            continues="",
        )


def listed(given: Any, what: str) -> list[tuple[str, Any]]:
    """Clients with their ids, which are those of a simulated fleet.

    Raises:
        DataError: it is no list, or an empty one.
    """
    if not isinstance(given, Sequence) or isinstance(given, str):
        raise DataError(f"{what} expects a list with the data of each client, got {type(given).__name__}.")
    if not given:
        raise DataError(f"{what} expects the data of at least one client, got an empty list.")
    return list(zip(device_ids(device_names(len(given))), given, strict=True))


def read(models: ReadyModels, given: Any, what: str = "data") -> ClientData | None:
    """One client's data; None where there are no rows."""
    return client_data(given, models.manifest, f"Its {what}")


@contextlib.contextmanager
def of_client(number: int) -> Iterator[None]:
    """Says of which client an error is."""
    try:
        yield
    except TaskDeclinedError as error:
        raise DataError(f"Client {number}: {error.message}", hint=error.hint) from error
    except EdgeflError as error:
        kind = DataError if isinstance(error, DataError) else RunError
        raise kind(f"Client {number}: {error.message}", hint=error.hint) from error


def _check(result: TaskResult) -> None:
    """Raises what kept a client from its work."""
    outcome, error = result.outcome, result.error
    if outcome.status == OutcomeStatus.DONE:
        return
    if outcome.reason == Reason.DIVERGED:
        raise DataError("Training or evaluation gave NaN or infinity.", hint="A smaller learning rate may help.")
    if isinstance(error, EdgeflError):
        raise error
    raise RuntimeFailure(f"A client failed: {first_line(error) if error else outcome.reason!r}.") from error
