"""Training metrics of a round: additive states of the devices, summed and then finalised as the manifest says."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

from edgefl.manifest import Metric
from edgefl.wire.messages import MetricState

__all__ = ["LOSS_STATES", "finalise", "known_states", "sum_states"]

LOSS_STATES = ("loss_sum", "rows")
"""Names under which devices report the loss: summed over rows, and the number of rows."""

Sums = dict[str, list[float]]


def known_states(metrics: Iterable[Metric]) -> frozenset[str]:
    """The names of all states that devices of a model may report; others are not kept."""
    return frozenset(LOSS_STATES).union(*(metric.states for metric in metrics))


def sum_states(sums: Mapping[str, Sequence[float]], states: Iterable[MetricState]) -> Sums:
    """Adds one device's states to the sums; a state of another length than before is left out."""
    result = {name: list(values) for name, values in sums.items()}
    for state in states:
        before = result.setdefault(state.name, [0.0] * len(state.values))
        if len(before) == len(state.values):
            result[state.name] = [a + b for a, b in zip(before, state.values, strict=False)]
    return result


def finalise(sums: Mapping[str, Sequence[float]], metrics: Iterable[Metric]) -> dict[str, float]:
    """The values that people read, by metric name, with ``loss`` among them when devices sent it.

    Args:
        sums: state name to summed elements.
        metrics: the manifest's; ``mean`` is the first state over the second. Others are left out.
    """
    values = {}
    known = [Metric("loss", "mean", LOSS_STATES), *metrics]
    for metric in known:
        if metric.finaliser != "mean" or len(metric.states) != 2 or any(name not in sums for name in metric.states):
            continue
        total, count = (math.fsum(sums[name]) for name in metric.states)
        if count > 0 and math.isfinite(total):
            values[metric.name] = total / count
    return values
