"""Training metrics of a round: additive states of the devices, summed and then finalised as the manifest says."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterable, Mapping, Sequence

from edgefl.errors import DataError
from edgefl.manifest import Metric
from edgefl.metrics import FINALISERS, LOSS_STATES, compute
from edgefl.wire.messages import MetricState

__all__ = ["finalise", "known_states", "sum_states"]

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

    Unlike `edgefl.metrics.finalise` this trusts no one: a metric whose states are missing, or have no finite value, is
    left out.

    Args:
        sums: state name to summed elements.
        metrics: the manifest's.
    """
    values = {}
    for metric in (Metric("loss", "mean", LOSS_STATES), *metrics):
        states = [sums[name] for name in metric.states if name in sums]
        if len(states) == len(metric.states) and metric.finaliser in FINALISERS:
            with contextlib.suppress(DataError):  # states that a device made up
                value = compute(metric, states)
                if math.isfinite(value):
                    values[metric.name] = value
    return values
