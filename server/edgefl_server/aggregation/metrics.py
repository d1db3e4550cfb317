"""Training metrics of a round: additive states of the devices, summed and then finalised as the manifest says."""

from __future__ import annotations

import contextlib
import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from edgefl.errors import DataError
from edgefl.manifest import Metric
from edgefl.metrics import FINALISERS, LOSS_STATES, compute
from edgefl.wire.messages import MetricState

__all__ = ["Reported", "finalise", "left_out", "sum_states"]

Sums = dict[str, list[float]]

_LOSS = Metric("loss", "mean", LOSS_STATES)
_MEANS = ("mean", "root_mean")
"""Finalisers of two states: a total, and for how much it counts."""
_WIDTH = 100.0
"""The bound in multiples of 1 + |median|: honest devices' losses differ by a few times, made-up ones by any number."""
_RATIO = 10.0
"""A device's total may count for so much per example, in multiples of the median: sample weights differ by less."""


@dataclass(frozen=True)
class Reported:
    """The metrics that one device says it has.

    Attributes:
        num_examples: as it says.
        states: as it sent them.
    """

    num_examples: int
    states: tuple[MetricState, ...]


def left_out(devices: Sequence[Reported], metrics: Iterable[Metric], sizes: Mapping[str, int]) -> list[set[str]]:
    """Finds the states of each device that do not count, since it must have made them up.

    Among three or more devices a metric's value may be at most 100 · (1 + |median|) away from the median of the round,
    and count per example for at most ten times the median; the states of a metric that is no mean may add up, per
    example, to 100 · (1 + median). The order of the devices does not matter.

    Args:
        devices: of one round.
        metrics: the manifest's.
        sizes: elements of every state that is kept, by name.

    Returns:
        Names of states, for each device.
    """
    result: list[set[str]] = [set() for _ in devices]
    if len(devices) < 3:
        return result
    sent = [
        {state.name: state.values for state in each.states if len(state.values) == sizes.get(state.name)}
        for each in devices
    ]
    for metric in (_LOSS, *metrics):
        having = [index for index, each in enumerate(sent) if all(name in each for name in metric.states)]
        if len(having) < 3:
            continue
        states = {index: [sent[index][name] for name in metric.states] for index in having}
        examples = {index: devices[index].num_examples for index in having}
        odd = _odd_means(states, examples) if metric.finaliser in _MEANS else _odd_sizes(states, examples)
        for index in odd:
            result[index].update(metric.states)
    return result


def _odd_means(states: Mapping[int, Sequence[Sequence[float]]], examples: Mapping[int, int]) -> set[int]:
    totals = {index: math.fsum(each[0]) for index, each in states.items()}
    counts = {index: math.fsum(each[1]) for index, each in states.items()}
    values = {index: totals[index] / counts[index] for index in states if counts[index] > 0}
    odd = {index for index in states if counts[index] < 0 or (counts[index] == 0 and totals[index] != 0)}
    if len(values) < 3:
        return odd
    median = statistics.median_low(values.values())
    odd |= {index for index, value in values.items() if not abs(value - median) <= _WIDTH * (1 + abs(median))}
    shares = {index: counts[index] / examples[index] for index in values}
    largest = _RATIO * statistics.median_low(shares.values())
    return odd | {index for index, share in shares.items() if share > largest}


def _odd_sizes(states: Mapping[int, Sequence[Sequence[float]]], examples: Mapping[int, int]) -> set[int]:
    sizes = {
        index: math.fsum(abs(value) for state in each for value in state) / examples[index]
        for index, each in states.items()
    }
    largest = _WIDTH * (1 + statistics.median_low(sizes.values()))
    return {index for index, size in sizes.items() if size > largest}


def sum_states(
    sums: Mapping[str, Sequence[float]],
    states: Iterable[MetricState],
    metrics: Iterable[Metric],
    sizes: Mapping[str, int],
    share: float = 1.0,
    without: Iterable[str] = (),
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
        without: states that do not count, see `left_out`.
    """
    unwanted = set(without)
    sent = {
        state.name: state.values
        for state in states
        if len(state.values) == sizes.get(state.name) and state.name not in unwanted
    }
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
