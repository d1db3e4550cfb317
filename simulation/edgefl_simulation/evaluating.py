"""Measures how good the newest weights are: on rows that no device holds, and on the devices themselves.

On devices that is before and, where somebody asks for it, after local training (personalisation). All are tasks of kind
``EVALUATE``, done by the same engine and the same function as training.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from edgefl.errors import DataError, InvalidSettingError
from edgefl.wire.messages import MetricState, OutcomeStatus, SectionCodec, Task, TaskKind
from edgefl_server.aggregation import ModelLimits, Spread, TaskSource, finalise, spread_over, sum_states, task_seed
from edgefl_simulation.draws import drawn_order
from edgefl_simulation.engines import Engine, Job, Tuning
from edgefl_simulation.plans import Plan
from edgefl_simulation.tables import HELD_OUT, Rows

__all__ = ["Evaluation", "Evaluator", "Personalisation", "Personalised"]

_ROWS = 2000
"""About how many held-out rows a job has: a number of its own, so that sums do not depend on the workers."""
_Values = Mapping[str, float]


@dataclass(frozen=True)
class Personalisation:
    """The local training after which devices are tested once more: each on its own, from the weights of the fleet.

    Attributes:
        epochs: passes over the rows that the device trains on; 0: as many as the steps need.
        max_steps: at most so many steps; 0: no limit.
        learning_rate: None: the run's.
    """

    epochs: int = 0
    max_steps: int = 0
    learning_rate: float | None = None

    def __post_init__(self) -> None:
        if self.epochs < 0 or self.max_steps < 0 or not (self.epochs or self.max_steps):
            raise InvalidSettingError(
                f"Personalisation expects a number of epochs or of steps above 0, got {self.epochs} and "
                f"{self.max_steps}."
            )
        rate = self.learning_rate
        if rate is not None and not (math.isfinite(rate) and rate > 0):
            raise InvalidSettingError(f"The learning rate of a personalisation expects a number above 0, got {rate:g}.")

    @property
    def passes(self) -> int:
        """The epochs of its task: a step is at most one."""
        return self.epochs or self.max_steps


@dataclass(frozen=True)
class Personalised:
    """Metrics of devices that keep rows for tests, before and after each has trained on its other rows.

    Attributes:
        devices: how many they are; the same ones before and after.
        before: over them, with the weights as they are.
        after: over them, each with weights of its own.
    """

    devices: int
    before: Mapping[str, Spread]
    after: Mapping[str, Spread]


@dataclass(frozen=True)
class Evaluation:
    """Figures that say how good weights are.

    Attributes:
        central: metrics on the held-out rows, by name; nothing where there are none.
        federated: metrics over devices.
        devices: how many of them were asked.
        personalised: what local training changes for devices; None: nobody asked.
    """

    central: Mapping[str, float]
    federated: Mapping[str, Spread]
    devices: int
    personalised: Personalised | None = None


class Evaluator:
    """Evaluates versions of a run's weights.

    Args:
        plan: what is simulated.
        engine: does the work.
        held_out: rows of the table of that name; 0: there is none.
        devices: how many are asked each time, drawn anew; 0: none.
        personalisation: what they train before they are tested once more; None: nothing.
    """

    def __init__(
        self, plan: Plan, engine: Engine, held_out: int, devices: int, personalisation: Personalisation | None = None
    ) -> None:
        self._settings, self._engine, self._fleet = plan.settings, engine, plan.fleet
        self._metrics, self._states = plan.manifest.metrics, ModelLimits.of(plan.manifest).states
        self._held_out, self._devices, self._among = held_out, min(devices, plan.devices), plan.devices
        self._personalisation = personalisation
        self._rows = math.ceil(_ROWS / plan.manifest.batch_size) * plan.manifest.batch_size

    def evaluate(self, source: TaskSource, base: int, folded: Mapping[str, str]) -> Evaluation:
        """Evaluates published weights.

        Args:
            source: of tasks that start from them.
            base: their number among the engine's published vectors.
            folded: each device's latest task that is part of the weights, for what it remembers of it.

        Raises:
            DataError: held-out rows do not fit the model.
        """
        starts = range(0, self._held_out, self._rows)
        pieces = [Rows(HELD_OUT, start, min(start + self._rows, self._held_out)) for start in starts]
        drawn = drawn_order(self._among, self._settings.effective_seed, "evaluation", source.version)
        asked = sorted(itertools.islice(drawn, self._devices))
        tuned = [device for device in asked if self._fleet.tests[device]] if self._personalisation else []
        central = self._submit(_job(source, base, rows, f"held-out-{number:06d}") for number, rows in enumerate(pieces))
        as_it_is = self._submit(
            _job(source, base, self._fleet.test_rows(device), name, folded.get(name, ""))
            for device, name in self._named(asked)
        )
        afterwards = self._submit(
            self._tuned(source, base, device, name, folded.get(name, "")) for device, name in self._named(tuned)
        )
        sums: dict[str, list[float]] = {}
        for states, error in map(self._done, central):
            if states is None:
                raise DataError(f"The held-out rows cannot be evaluated: {error}")
            sums = sum_states(sums, states, self._metrics, self._states)
        before = dict(zip(asked, map(self._values, as_it_is), strict=True))
        after = dict(zip(tuned, map(self._values, afterwards), strict=True))
        federated, devices = spread_over(before.values())
        return Evaluation(finalise(sums, self._metrics), federated, devices, self._compared(before, after))

    def _compared(self, before: Mapping[int, _Values], after: Mapping[int, _Values]) -> Personalised | None:
        if self._personalisation is None:
            return None
        both = [device for device in after if before[device] and after[device]]
        spread, devices = spread_over([before[device] for device in both])
        return Personalised(devices, spread, spread_over([after[device] for device in both])[0])

    def _named(self, devices: Sequence[int]) -> Iterator[tuple[int, str]]:
        return ((device, self._fleet.names[device]) for device in devices)

    def _submit(self, jobs: Iterable[Job]) -> list[int]:
        return [self._engine.submit(job) for job in jobs]

    def _tuned(self, source: TaskSource, base: int, device: int, name: str, continues: str) -> Job:
        personalisation = self._personalisation
        assert personalisation is not None
        job = _job(source, base, self._fleet.test_rows(device), f"{name}-tuned", continues)
        rate = personalisation.learning_rate
        training = replace(
            job.task,
            task_id=f"{job.task.task_id}-training",
            kind=TaskKind.TRAIN,
            seed=task_seed(self._settings.effective_seed, source.version, f"{name} personalised"),
            epochs=personalisation.passes,
            max_steps=personalisation.max_steps,
            batch_size=self._settings.batch_size,
            learning_rate=self._settings.learning_rate if rate is None else rate,
            codecs=(SectionCodec("delta", "float32", 0), SectionCodec("statistics", "float32", 0)),
        )
        return replace(job, tuning=Tuning(training, self._fleet.rows(device)))

    def _values(self, ticket: int) -> _Values:
        """The metrics of one device; nothing where it failed."""
        states, _ = self._done(ticket)
        return {} if states is None else finalise(sum_states({}, states, self._metrics, self._states), self._metrics)

    def _done(self, ticket: int) -> tuple[tuple[MetricState, ...] | None, str]:
        worked = self._engine.result(ticket)
        self._engine.release(ticket)
        done = worked.outcome.status == OutcomeStatus.DONE
        return (worked.outcome.metrics if done else None), worked.error


def _job(source: TaskSource, base: int, rows: Rows, who: str, continues: str = "") -> Job:
    task = Task(
        population=source.population,
        run=source.run,
        version=source.version,
        task_id=f"{source.run}-evaluation-{source.version}-{who}",
        model_hash=source.model.sha256,
        graph_hash=source.graph_hash,
        layout_hash=source.layout_hash,
        base_weights_hash=source.base.sha256,
        kind=TaskKind.EVALUATE,
        continues=continues,
    )
    return Job(task, base, rows, minimum_examples=1)
