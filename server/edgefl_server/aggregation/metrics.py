"""Training metrics of a round: additive states of the devices, summed and then finalised as the manifest says."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterable, Mapping, Sequence

from edgefl.errors import DataError
from edgefl.manifest import Metric
from edgefl.metrics import FINALISERS, LOSS_STATES, compute
from edgefl.wire.messages import MetricState

__all__ = ["finalise", "sum_states"]

Sums = dict[str, list[float]]

_LOSS = Metric("loss", "mean", LOSS_STATES)


def sum_states(
    sums: Mapping[str, Sequence[float]],
    states: Iterable[MetricState],
    metrics: Iterable[Metric],
    sizes: Mapping[str, int],
    share: float = 1.0,
) -> Sums:
    """Adds one device's states to the sums.

    A metric of which a device sent only a part would make that part count for the others' too, and a state of another
    length cannot be added: such a metric is left out for this device, the loss like any other.

    Args:
        sums: of the devices before, by state.
        states: what the device sent; names that no metric has are ignored.
        metrics: the manifest's.
        sizes: elements of every state that is kept, by name.
        share: 1; less where the device counts for fewer examples than it says.
    """
    sent = {state.name: state.values for state in states if len(state.values) == sizes.get(state.name)}
    result = {name: list(values) for name, values in sums.items()}
    wanted = {
        name for metric in (_LOSS, *metrics) if all(each in sent for each in metric.states) for name in metric.states
    }
    for name in sorted(wanted):
        before = result.get(name, [0.0] * len(sent[name]))
        result[name] = [a + share * b for a, b in zip(before, sent[name], strict=True)]
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
    for metric in (_LOSS, *metrics):
        states = [sums[name] for name in metric.states if name in sums]
        if len(states) == len(metric.states) and metric.finaliser in FINALISERS:
            with contextlib.suppress(DataError):  # states that a device made up
                value = compute(metric, states)
                if math.isfinite(value):
                    values[metric.name] = value
    return values
