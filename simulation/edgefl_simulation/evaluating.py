"""Measures how good the newest weights are: on rows that no device holds, and on the devices themselves.

Both are tasks of kind ``EVALUATE``, done by the same engine and the same function as training.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from edgefl.errors import DataError
from edgefl.manifest import ModelManifest
from edgefl.wire.messages import MetricState, OutcomeStatus, Task, TaskKind
from edgefl_server.aggregation import ModelLimits, TaskSource, finalise, sum_states
from edgefl_simulation.draws import drawn_order
from edgefl_simulation.engines import Engine, Job
from edgefl_simulation.fleet import Fleet
from edgefl_simulation.tables import HELD_OUT, Rows

__all__ = ["Evaluation", "Evaluator", "Spread", "is_better", "is_loss"]

_ROWS = 2000
"""About how many held-out rows a job has: a number of its own, so that sums do not depend on the workers."""
_QUANTILES = (0.1, 0.5, 0.9)
_LOSSES = ("loss", "error", "mse", "mae", "mape", "msle", "crossentropy", "divergence", "hinge", "poisson")


@dataclass(frozen=True)
class Spread:
    """One metric over devices, each of which counts once.

    Attributes:
        mean: over all.
        quantiles: by share: 0.1, 0.5 and 0.9.
        worst_tenth: the mean over the tenth of devices for which it is worst, at least one of them.
    """

    mean: float
    quantiles: Mapping[float, float]
    worst_tenth: float

    @classmethod
    def of(cls, name: str, values: Sequence[float]) -> Spread:
        """Looks at the values of a metric.

        Args:
            name: the metric's, which says whether more of it is better.
            values: of each device; at least one.
        """
        worst_first = np.sort(np.asarray(values, np.float64))
        if is_loss(name):
            worst_first = worst_first[::-1]
        worst = worst_first[: max(1, len(values) // 10)]
        quantiles = np.quantile(worst_first, _QUANTILES)
        return cls(
            float(worst_first.mean()),
            {share: float(value) for share, value in zip(_QUANTILES, quantiles, strict=True)},
            float(worst.mean()),
        )


@dataclass(frozen=True)
class Evaluation:
    """Figures that say how good weights are.

    Attributes:
        central: metrics on the held-out rows, by name; nothing where there are none.
        federated: metrics over devices.
        devices: how many of them were asked.
    """

    central: Mapping[str, float]
    federated: Mapping[str, Spread]
    devices: int


class Evaluator:
    """Evaluates versions of a run's weights.

    Args:
        manifest: the model's.
        engine: does the work.
        fleet: whose devices are asked.
        held_out: rows of the table of that name; 0: there is none.
        devices: how many are asked each time, drawn anew; 0: none.
        seed: of that choice.
    """

    def __init__(
        self, manifest: ModelManifest, engine: Engine, fleet: Fleet, held_out: int, devices: int, seed: int
    ) -> None:
        self._manifest, self._engine, self._fleet = manifest, engine, fleet
        self._states = ModelLimits.of(manifest).states
        self._held_out, self._devices, self._seed = held_out, min(devices, len(fleet)), seed
        self._rows = math.ceil(_ROWS / manifest.batch_size) * manifest.batch_size

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
        drawn = drawn_order(len(self._fleet), self._seed, "evaluation", source.version)
        asked = sorted(itertools.islice(drawn, self._devices))
        jobs = [self._job(source, base, rows, f"held-out-{number:06d}") for number, rows in enumerate(pieces)]
        for device in asked:
            name = self._fleet.names[device]
            jobs.append(self._job(source, base, self._fleet.test_rows(device), name, folded.get(name, "")))
        found = [self._done(ticket) for ticket in [self._engine.submit(job) for job in jobs]]
        sums: dict[str, list[float]] = {}
        for states, error in found[: len(pieces)]:
            if states is None:
                raise DataError(f"The held-out rows cannot be evaluated: {error}")
            sums = sum_states(sums, states, self._manifest.metrics, self._states)
        values: dict[str, list[float]] = {}
        for states, _ in found[len(pieces) :]:
            if states is not None:
                own = sum_states({}, states, self._manifest.metrics, self._states)
                for name, value in finalise(own, self._manifest.metrics).items():
                    values.setdefault(name, []).append(value)
        return Evaluation(
            finalise(sums, self._manifest.metrics),
            {name: Spread.of(name, each) for name, each in values.items()},
            max(map(len, values.values()), default=0),
        )

    def _job(self, source: TaskSource, base: int, rows: Rows, who: str, continues: str = "") -> Job:
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

    def _done(self, ticket: int) -> tuple[tuple[MetricState, ...] | None, str]:
        worked = self._engine.result(ticket)
        self._engine.release(ticket)
        done = worked.outcome.status == OutcomeStatus.DONE
        return (worked.outcome.metrics if done else None), worked.error


def is_better(name: str, value: float, bound: float) -> bool:
    """Whether a metric has reached a bound: from below, or from above where less of it is better."""
    return value <= bound if is_loss(name) else value >= bound


def is_loss(name: str) -> bool:
    """Whether less of a metric is better, as far as its name tells."""
    return any(word in name.lower() for word in _LOSSES)
