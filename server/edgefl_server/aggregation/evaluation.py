"""Says how good weights are for a fleet: as a whole, exactly, from summed states; and how it differs between devices.

No device sends a prediction. The value of a metric over the fleet is made of the sums of its states, and so is what it
would be on the pooled examples; that over devices, each of which counts once, is made of the value of each.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgefl_server.aggregation.folding import Believed, Folded
from edgefl_server.aggregation.metrics import Reported, Sums, finalise, left_out, sum_states
from edgefl_server.aggregation.patience import less_is_better
from edgefl_server.aggregation.seeds import task_seed
from edgefl_server.aggregation.settings import RunSettings
from edgefl_server.aggregation.strategies import StrategyState
from edgefl_server.aggregation.updates import Contribution

__all__ = [
    "Spread",
    "evaluation_settings",
    "fold_evaluations",
    "is_better",
    "is_due",
    "is_loss",
    "next_evaluation",
    "spread_over",
]

_QUANTILES = (0.1, 0.5, 0.9)
_ALWAYS = 1_000_000
"""More evaluations than a run has rounds."""


@dataclass(frozen=True)
class Spread:
    """One metric over devices, each of which counts once.

    Attributes:
        mean: over all.
        deviation: from the mean, the root of the mean square.
        quantiles: by share: 0.1, 0.5 and 0.9; nothing over few devices.
        worst_tenth: the mean over the tenth of devices for which it is worst, at least one of them; None over few.
    """

    mean: float
    deviation: float = 0.0
    quantiles: Mapping[float, float] | None = None
    worst_tenth: float | None = None

    @classmethod
    def of(cls, name: str, values: Sequence[float], quantiles_from: int = 1) -> Spread:
        """Looks at the values of a metric.

        Args:
            name: the metric's, which says whether more of it is better.
            values: of each device; at least one.
            quantiles_from: so many values at least have quantiles, since each of those is the value of some device.
        """
        worst_first = np.sort(np.asarray(values, np.float64))
        if is_loss(name):
            worst_first = worst_first[::-1]
        mean, deviation = float(worst_first.mean()), float(worst_first.std())
        if len(values) < quantiles_from:
            return cls(mean, deviation)
        worst = worst_first[: max(1, len(values) // 10)]
        quantiles = np.quantile(worst_first, _QUANTILES)
        return cls(
            mean,
            deviation,
            {share: float(value) for share, value in zip(_QUANTILES, quantiles, strict=True)},
            float(worst.mean()),
        )

    def to_json(self) -> dict[str, Any]:
        """The figures that there are as plain values."""
        found: dict[str, Any] = {"mean": self.mean, "deviation": self.deviation}
        if self.quantiles is not None:
            found["quantiles"] = {f"{share:g}": value for share, value in self.quantiles.items()}
        if self.worst_tenth is not None:
            found["worst_tenth"] = self.worst_tenth
        return found


def spread_over(
    devices: Iterable[Mapping[str, float]], shown_from: int = 1, quantiles_from: int = 1
) -> tuple[dict[str, Spread], int]:
    """Each metric over the devices that have it, and how many devices have one.

    Args:
        devices: the values of each, by metric.
        shown_from: a metric of fewer devices is left out.
        quantiles_from: see `Spread.of`.
    """
    values: dict[str, list[float]] = {}
    for each in devices:
        for name, value in each.items():
            values.setdefault(name, []).append(value)
    spread = {
        name: Spread.of(name, found, quantiles_from) for name, found in values.items() if len(found) >= shown_from
    }
    return spread, max(map(len, values.values()), default=0)


def evaluation_settings(settings: RunSettings) -> RunSettings:
    """The settings of the evaluations of a run, which are like synchronous rounds of their own.

    A device counts for all examples that it has, as it says: figures that are capped would be of no data. It cannot
    move weights by that, and each counts once in what is over devices.

    Args:
        settings: of the run, with `evaluate_every`.
    """
    cohort = settings.evaluate_cohort or settings.target
    return RunSettings(
        rounds=_ALWAYS,
        target=cohort,
        kind="evaluate",
        minimum=min(settings.minimum, cohort),
        over_selection=settings.over_selection,
        deadline_seconds=settings.deadline_seconds,
        lease_seconds=settings.lease_seconds,
        task_seconds=settings.task_seconds,
        shown_from=settings.shown_from,
        quantiles_from=settings.quantiles_from,
        selection=settings.selection,
        selection_window=settings.selection_window,
        selection_memory_bytes=settings.selection_memory_bytes,
        # Another seed: who is drawn for an evaluation has nothing to do with who is drawn to train.
        seed=task_seed(settings.effective_seed, 0, "evaluation") >> 1,
    )


def next_evaluation(every: int, evaluated: int | None, newest: int, *, over: bool) -> int | None:
    """Says which version of the weights is to be evaluated next; None: none until there is another one.

    These are the initial one, every ``every``-th, and the last of a run. Where evaluations take longer than rounds,
    the newest of those counts, and what lies between is left out: the figures stay those of weights in use.

    Args:
        every: versions from one evaluation to the next.
        evaluated: the latest version that was evaluated; None: none was.
        newest: the newest version.
        over: there will be no further version.
    """
    due = newest if over else newest - newest % every
    return due if evaluated is None or due > evaluated else None


def is_due(every: int, version: int, last: int | None) -> bool:
    """Whether a version is among those that are evaluated where none is left out.

    Args:
        every: versions from one evaluation to the next.
        version: its number.
        last: the number of the run's last version; None: there may be more.
    """
    return version % every == 0 or version == last


def fold_evaluations(
    before: StrategyState, contributions: Sequence[Contribution], believed: Believed, settings: RunSettings
) -> Folded:
    """Sums up what devices found; the weights stay as they are.

    Args:
        before: the weights that were evaluated.
        contributions: in the order of a fold, so that sums do not depend on arrival.
        believed: of the metrics; devices count for as many examples as they say.
        settings: of the evaluation.

    Returns:
        The fold, with the ``spread`` over devices among its findings.

    Raises:
        EdgeflError: what reading a contribution raises.
    """
    reported = [Reported(each.num_examples, each.read().metrics) for each in contributions]
    unbelieved = left_out(reported, believed.metrics, believed.limits.states)
    sums: Sums = {}
    values = []
    for device, without in zip(reported, unbelieved, strict=True):
        own = sum_states({}, device.states, believed.metrics, believed.limits.states, without=without)
        sums = sum_states(sums, device.states, believed.metrics, believed.limits.states, without=without)
        values.append(finalise(own, believed.metrics))
    spread, devices = spread_over(values, settings.shown_from, settings.quantiles_from)
    return Folded(
        before,
        sum(each.num_examples for each in reported),
        sums,
        {"outcomes": float(len(reported)), "metrics_left_out": float(sum(map(bool, unbelieved)))},
        {"devices": devices, "spread": {name: each.to_json() for name, each in spread.items()}},
    )


def is_better(name: str, value: float, bound: float) -> bool:
    """Whether a metric has reached a bound: from below, or from above where less of it is better."""
    return value <= bound if is_loss(name) else value >= bound


def is_loss(name: str) -> bool:
    """Whether less of a metric is better, as far as its name tells."""
    return less_is_better(name)
