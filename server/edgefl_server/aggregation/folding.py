"""Makes of the accepted updates of a fold what it leaves: new weights, summed metrics, and figures about both.

No device is trusted more than the others here: how much each counts and what statistics may become is settled before a
strategy sees anything.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import isfinite
from numbers import Real
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgefl.errors import RunError
from edgefl.manifest import Metric
from edgefl_server.aggregation.caps import Counted, count_examples
from edgefl_server.aggregation.limits import ModelLimits
from edgefl_server.aggregation.metrics import Reported, left_out, sum_states
from edgefl_server.aggregation.staleness import Staleness
from edgefl_server.aggregation.statistics import Range, absolute_range, range_of_round
from edgefl_server.aggregation.strategies import Cohort, Strategy, StrategyState
from edgefl_server.aggregation.updates import Contribution, FoldError, Update, Updates

__all__ = ["Believed", "Folded", "fold"]


@dataclass(frozen=True)
class Believed:
    """Says how far devices are believed.

    Attributes:
        max_examples: a device counts for at most so many.
        max_weight_ratio: and for so many times the median, see `count_examples`; 0: no such limit.
        limits: of the run's model.
        metrics: of the run's model.
        staleness: for how much an update counts that did not begin from the newest weights.
    """

    max_examples: int
    max_weight_ratio: float
    limits: ModelLimits
    metrics: Sequence[Metric]
    staleness: Staleness = field(default_factory=Staleness)


@dataclass(frozen=True)
class Folded:
    """The result of a fold.

    Attributes:
        state: the strategy's.
        num_examples: for how many the updates counted together.
        metric_sums: metric states, each device's as far as its examples counted.
        diagnostics: the strategy's figures (``update_norm``: by how much the weights moved), ``outcomes``, ``weight``,
            and ``devices_capped`` with ``weight_cap``, ``devices_bounded`` with ``statistics_bounded``: how many
            devices counted for less than they said and for how much at most, and how many sent statistics outside the
            range and how many elements these were; ``metrics_left_out``: devices of which a metric does not count. The
            latter are 0 in a fold of honest devices that are alike. Where some are stale, ``staleness`` (the mean, in
            versions), ``stalest``, and ``staleness_weight`` (the mean factor by which they were multiplied).
        findings: of a fold that makes no weights: how metrics spread over devices, or statistics of their data.
    """

    state: StrategyState
    num_examples: int
    metric_sums: dict[str, list[float]]
    diagnostics: dict[str, float]
    findings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def is_finite(self) -> bool:
        """Whether the state is one to go on from: no device can train from NaN or infinity."""
        return all(np.isfinite(vector).all() for vector in (self.state.weights, *self.state.slots.values()))

    def require_finite(self) -> Folded:
        """The same, which is one to go on from.

        Raises:
            FoldError: it is not.
        """
        if not self.is_finite:
            raise FoldError("the new weights would not be finite: the run diverges")
        return self


def fold(
    strategy: Strategy,
    before: StrategyState,
    contributions: Sequence[Contribution],
    believed: Believed,
    cohort: Cohort,
    scratch: Path | None = None,
) -> Folded:
    """Folds updates into the state of a strategy.

    Args:
        strategy: the run's.
        before: what the fold starts from.
        contributions: its updates, in the order of `Updates`; without any, the state stays as it is.
        believed: how far their devices are.
        cohort: what is known of those who take part.
        scratch: folder for temporary files without a name; None: the system's.

    Raises:
        RunError: the contributions are in another order, or the strategy returns what is no state of the run.
        OSError: the temporary file cannot be written.
        EdgeflError: what reading a contribution raises.
    """
    raw = Updates(contributions, scratch)
    said = [each.num_examples for each in contributions]
    counted = count_examples(said, believed.max_examples, believed.max_weight_ratio)
    ranges = _range(before, raw, believed.limits)
    factors = believed.staleness.factors([each.staleness for each in contributions])
    mixed = before.weights if strategy.mixes_models else None
    reading = _Reading(contributions, counted, ranges, factors, mixed)
    after, figures = before, {"update_norm": 0.0}
    if contributions:
        after, figures = _required(strategy.apply(before, raw.changed(reading.believe), cohort), before)
        after = _settled(after, ranges)
    unread = [each for each in contributions if each.task_id not in reading.found]
    for each in unread:  # a strategy may do without some
        reading.believe(each.read())
    found = [reading.found[each.task_id] for each in contributions]
    reported = [each.reported for each in found]
    unbelieved = left_out(reported, believed.metrics, believed.limits.states)
    sums: dict[str, list[float]] = {}
    for device, examples, without in zip(reported, counted.examples, unbelieved, strict=True):
        share = examples / device.num_examples
        sums = sum_states(sums, device.states, believed.metrics, believed.limits.states, share, without)
    return Folded(
        after,
        sum(counted.examples),
        sums,
        {
            "outcomes": float(len(contributions)),
            "weight": float(sum(counted.examples)),
            **figures,
            **_staleness([each.staleness for each in contributions], factors),
            "devices_capped": float(counted.capped),
            "weight_cap": float(counted.cap),
            "devices_bounded": float(sum(each.outside > 0 for each in found)),
            "statistics_bounded": float(sum(each.outside for each in found)),
            "metrics_left_out": float(sum(map(bool, unbelieved))),
        },
    )


def _staleness(staleness: list[int], factors: list[float]) -> dict[str, float]:
    if not any(staleness):
        return {}
    return {
        "staleness": sum(staleness) / len(staleness),
        "stalest": float(max(staleness)),
        "staleness_weight": sum(factors) / len(factors),
    }


def _required(result: Any, before: StrategyState) -> tuple[StrategyState, dict[str, float]]:
    """Checks what a strategy returned, which may be one from outside; only a state may become the weights of a run.

    Raises:
        RunError: it is no state like the one before, or there are no figures with it.
    """
    if not isinstance(result, tuple) or len(result) != 2 or not isinstance(result[0], StrategyState):
        raise RunError(f"The strategy expects to return a StrategyState and its figures, got {type(result).__name__}.")
    after, figures = result
    for name, vector in {"weights": after.weights, **after.slots}.items():
        if not isinstance(vector, np.ndarray) or vector.dtype != np.float32 or vector.ndim != 1:
            raise RunError(f"The strategy expects to return {name} as a float32 vector, got {_described(vector)}.")
    if (after.weights.size, after.weight_size) != (before.weights.size, before.weight_size):
        raise RunError(
            f"The strategy expects to return {before.weights.size} elements, {before.weight_size} of them weights, "
            f"got {after.weights.size} and {after.weight_size}."
        )
    if not isinstance(figures, dict) or not all(isinstance(each, Real) for each in figures.values()):
        raise RunError(f"The strategy expects to return its figures as a dict of numbers, got {figures!r:.80}.")
    # Only what is finite can be written as JSON, and a step that diverges has a norm that is not.
    return after, {str(name): float(value) for name, value in figures.items() if isfinite(value)}


def _described(value: object) -> str:
    return f"{value.dtype} of shape {value.shape}" if isinstance(value, np.ndarray) else type(value).__name__


@dataclass(frozen=True)
class _Found:
    """Notes about an update, taken while a strategy has it, since it may not be read again for that."""

    reported: Reported
    outside: int


class _Reading:
    """Caps, bounds and discounts updates as they are read, and notes what was found, by task id.

    Where models are `mixed`, updates are first taken as differences to these newest weights.
    """

    def __init__(
        self,
        contributions: Sequence[Contribution],
        counted: Counted,
        ranges: Range,
        factors: Sequence[float],
        mixed: NDArray[np.float32] | None,
    ) -> None:
        self.found: dict[str, _Found] = {}
        self._said = {each.task_id: each.num_examples for each in contributions}
        self._counts = {each.task_id: count for each, count in zip(contributions, counted.examples, strict=True)}
        self._factors = {each.task_id: factor for each, factor in zip(contributions, factors, strict=True)}
        self._ranges, self._mixed = ranges, mixed
        self._bases = {each.task_id: each.base for each in contributions}

    def believe(self, update: Update) -> Update:
        """The update as it counts."""
        base = self._bases[update.task_id]
        if self._mixed is not None and base is not None and update.staleness:
            update = update.mixed(base(), self._mixed)
        update = update.scaled(self._factors[update.task_id])
        sections, outside = update.sections, 0
        if update.statistics.size:
            bounded, outside = self._ranges.bounded(update.statistics)
            sections = {**sections, "statistics": bounded}
        self.found[update.task_id] = _Found(Reported(self._said[update.task_id], update.metrics), outside)
        return replace(update, num_examples=self._counts[update.task_id], sections=sections)


def _settled(state: StrategyState, ranges: Range) -> StrategyState:
    statistics = state.weights[state.weight_size :]
    settled = ranges.settled(statistics)
    if settled is statistics:
        return state
    return replace(state, weights=np.concatenate([state.weights[: state.weight_size], settled]))


def _range(before: StrategyState, updates: Updates, limits: ModelLimits) -> Range:
    base = before.weights[before.weight_size :]
    if not base.size or len(updates) < 2:
        return absolute_range(base, limits)
    return range_of_round(base, updates.blocks("statistics"), limits)
