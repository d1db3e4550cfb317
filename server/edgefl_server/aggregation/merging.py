"""From the accepted outcomes of a round to what it leaves: new weights, summed metrics, and figures about both.

No device is trusted more than the others here: how much each counts and what statistics may become is settled before a
strategy sees anything.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgefl.manifest import Metric
from edgefl.wire.messages import MetricState
from edgefl_server.aggregation.caps import count_examples
from edgefl_server.aggregation.limits import ModelLimits
from edgefl_server.aggregation.metrics import Reported, left_out, sum_states
from edgefl_server.aggregation.settings import RunSettings
from edgefl_server.aggregation.statistics import Range, absolute_range, range_of_round
from edgefl_server.aggregation.strategies import Strategy, StrategyState, Update

__all__ = ["Contribution", "Merged", "merge"]

_IN_MEMORY = 32 << 20
"""More bytes of statistics than this lie in a temporary file while the medians are found."""


@dataclass(frozen=True)
class Contribution:
    """An accepted outcome that is read when it is needed, since all of them need not fit into memory.

    Attributes:
        task_id: whose.
        num_examples: as the device says.
        read: the update and the metric states; is called once or twice.
    """

    task_id: str
    num_examples: int
    read: Callable[[], tuple[Update, tuple[MetricState, ...]]]


@dataclass(frozen=True)
class Merged:
    """What a round leaves.

    Attributes:
        state: the strategy's.
        num_examples: for how many the outcomes counted together.
        metric_sums: metric states, each device's as far as its examples counted.
        diagnostics: the strategy's figures, and ``devices_capped`` with ``weight_cap``, ``devices_bounded`` with
            ``statistics_bounded``: how many devices counted for less than they said and for how much at most, and how
            many sent statistics outside the range and how many elements these were; ``metrics_left_out``: devices of
            which a metric does not count. All 0 in a round of honest devices that are alike.
    """

    state: StrategyState
    num_examples: int
    metric_sums: dict[str, list[float]]
    diagnostics: dict[str, float]


def merge(
    strategy: Strategy,
    before: StrategyState,
    contributions: Sequence[Contribution],
    settings: RunSettings,
    limits: ModelLimits,
    metrics: Sequence[Metric],
    weight_size: int,
    scratch: Path | None = None,
) -> Merged:
    """Folds the outcomes of a round, in the order of their task ids.

    Args:
        strategy: the run's.
        before: what the round started from.
        contributions: its outcomes, in ascending order of task ids.
        settings: the run's.
        limits: of the run's model.
        metrics: of the run's model.
        weight_size: elements of the weight section, after which statistics begin.
        scratch: folder for a temporary file without a name; None: the system's.

    Raises:
        RunError: the contributions are in another order.
        OSError: the temporary file cannot be written.
        EdgeflError: what reading a contribution raises.
    """
    counted = count_examples(
        [each.num_examples for each in contributions], settings.max_examples, settings.max_weight_ratio
    )
    ranges = _range(before.weights[weight_size:], contributions, limits, scratch)
    accumulator = strategy.start(before)
    reported = []
    devices_bounded = statistics_bounded = 0
    for contribution, examples in zip(contributions, counted.examples, strict=True):
        update, states = contribution.read()
        statistics, outside = update.statistics, 0
        if statistics.size:
            statistics, outside = ranges.bounded(statistics)
        accumulator = strategy.fold(accumulator, replace(update, num_examples=examples, statistics=statistics))
        reported.append(Reported(contribution.num_examples, states))
        devices_bounded += outside > 0
        statistics_bounded += outside
    after, diagnostics = strategy.finish(before, accumulator)
    unbelieved = left_out(reported, metrics, limits.states)
    sums: dict[str, list[float]] = {}
    for said, examples, without in zip(reported, counted.examples, unbelieved, strict=True):
        sums = sum_states(sums, said.states, metrics, limits.states, examples / said.num_examples, without)
    return Merged(
        _settled(after, weight_size, ranges) if contributions else after,
        sum(counted.examples),
        sums,
        {
            **diagnostics,
            "devices_capped": float(counted.capped),
            "weight_cap": float(counted.cap),
            "devices_bounded": float(devices_bounded),
            "statistics_bounded": float(statistics_bounded),
            "metrics_left_out": float(sum(map(bool, unbelieved))),
        },
    )


def _settled(state: StrategyState, weight_size: int, ranges: Range) -> StrategyState:
    statistics = state.weights[weight_size:]
    settled = ranges.settled(statistics)
    if settled is statistics:
        return state
    return replace(state, weights=np.concatenate([state.weights[:weight_size], settled]))


def _range(
    base: NDArray[np.float32], contributions: Sequence[Contribution], limits: ModelLimits, scratch: Path | None
) -> Range:
    if not base.size or len(contributions) < 2:
        return absolute_range(base, limits)
    shape = len(contributions), base.size
    if 4 * shape[0] * shape[1] <= _IN_MEMORY:
        return range_of_round(base, _read_statistics(contributions, np.empty(shape, np.float32)), limits)
    with tempfile.TemporaryFile(dir=scratch) as file:
        changes = np.memmap(file, np.float32, "w+", shape=shape)
        return range_of_round(base, _read_statistics(contributions, changes), limits)


def _read_statistics(contributions: Sequence[Contribution], changes: NDArray[np.float32]) -> NDArray[np.float32]:
    for row, contribution in enumerate(contributions):
        changes[row] = contribution.read()[0].statistics
    return changes
