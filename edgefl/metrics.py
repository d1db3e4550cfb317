"""Turns the summed states of metrics, of one device or of a whole fleet, into their values."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from edgefl.errors import DataError, FormatVersionError, listed
from edgefl.finalisers import FINALISERS
from edgefl.manifest import Metric

__all__ = [
    "AFTER",
    "BEFORE",
    "FINALISERS",
    "LOSS_STATES",
    "add_states",
    "around_training",
    "check_finalisers",
    "compute",
    "finalise",
    "is_share",
]

LOSS_STATES = ("loss_sum", "rows")
"""The states of the loss, which every evaluation has: its sum over the rows and their number."""
BEFORE, AFTER = "before/", "after/"
"""In front of metrics, and of their states, of weights that a device tests before and after it trains."""
_SHARES = ("area_under_curve", "best_at", "f_beta", "intersection_over_union", "r_squared", "share")
_ACCURACIES = re.compile(r"acc|((sparse_)?(top_k_)?categorical_|binary_)?accuracy")
"""Means of shares, by the names that Keras gives them."""
_LOSS = Metric("loss", "mean", LOSS_STATES)


def compute(metric: Metric, states: Sequence[ArrayLike]) -> float:
    """The value of one metric.

    Args:
        metric: the manifest's.
        states: summed, in the order of ``metric.states``; of any shape.

    Raises:
        DataError: the states are not what the metric's settings say.
        FormatVersionError: its finaliser is not known here.
    """
    check_finalisers([metric])
    try:
        return FINALISERS[metric.finaliser]([np.asarray(state) for state in states], metric.settings)
    except (ValueError, KeyError, IndexError, ZeroDivisionError) as error:
        raise DataError(f"The states of metric {metric.name!r} do not fit its settings: {error}") from error


def is_share(metric: Metric) -> bool:
    """Whether a metric is known never to be more than 1; False also where its name does not tell."""
    return metric.finaliser in _SHARES or (metric.finaliser == "mean" and bool(_ACCURACIES.fullmatch(metric.name)))


def check_finalisers(metrics: Iterable[Metric]) -> None:
    """Makes sure that every metric can be finalised.

    Raises:
        FormatVersionError: a metric's finaliser is not known here.
    """
    for metric in metrics:
        if metric.finaliser not in FINALISERS:
            raise FormatVersionError(
                f"Metric {metric.name!r} needs the finaliser {metric.finaliser!r}; this edgefl knows "
                f"{', '.join(FINALISERS)}.",
                hint="Use a newer edgefl.",
            )


def around_training(metrics: Iterable[Metric]) -> tuple[Metric, ...]:
    """The metrics of a run whose devices test weights before and after they train, beside those of the training.

    Args:
        metrics: the manifest's.
    """
    metrics = tuple(metrics)
    return metrics + tuple(
        replace(each, name=prefix + each.name, states=tuple(prefix + state for state in each.states))
        for prefix in (BEFORE, AFTER)
        for each in (_LOSS, *metrics)
    )


def add_states(sums: dict[str, NDArray[np.float64]], states: Mapping[str, ArrayLike]) -> None:
    """Adds states to sums of the same names, in float64; names that the sums lack are begun."""
    for name, value in states.items():
        if name in sums:
            sums[name] += np.asarray(value, np.float64)
        else:
            sums[name] = np.array(value, np.float64)


def finalise(metrics: Iterable[Metric], states: Mapping[str, ArrayLike]) -> dict[str, float]:
    """Computes the values of the loss and the metrics.

    Args:
        metrics: the manifest's.
        states: their summed states by name; the loss counts when its states `LOSS_STATES` are among them.

    Returns:
        ``loss`` first, then each metric by its name.

    Raises:
        DataError: a metric's state is missing.
        FormatVersionError: a metric's finaliser is not known here.
    """
    metrics = tuple(metrics)
    check_finalisers(metrics)
    missing = [name for metric in metrics for name in metric.states if name not in states]
    if missing:
        raise DataError(f"Metric states are missing: {listed(missing)}; got {listed(states)}.")
    values = {}
    if all(name in states for name in LOSS_STATES):
        values["loss"] = compute(_LOSS, [states[name] for name in LOSS_STATES])
    for metric in metrics:
        values[metric.name] = compute(metric, [states[name] for name in metric.states])
    return values
