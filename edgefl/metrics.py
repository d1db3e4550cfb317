"""From the summed states of metrics, of one device or of a whole fleet, to their values."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from edgefl.errors import DataError, FormatVersionError
from edgefl.manifest import Metric

__all__ = ["FINALISERS", "LOSS_STATES", "add_states", "check_finalisers", "finalise"]

LOSS_STATES = ("loss_sum", "rows")
"""The states of the loss, which every evaluation has: its sum over the rows and their number."""


def _mean(states: Sequence[NDArray[Any]]) -> float:
    total, count = (float(np.sum(state)) for state in states)
    return total / count if count else 0.0


FINALISERS: dict[str, Callable[[Sequence[NDArray[Any]]], float]] = {"mean": _mean}
"""By the name that a manifest gives; ``mean`` is the first state over the second, 0 where nothing was counted."""


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
        raise DataError(f"Metric states are missing: {', '.join(missing)}; got {', '.join(states) or 'none'}.")
    values = {}
    if all(name in states for name in LOSS_STATES):
        values["loss"] = _mean([np.asarray(states[name]) for name in LOSS_STATES])
    for metric in metrics:
        values[metric.name] = FINALISERS[metric.finaliser]([np.asarray(states[name]) for name in metric.states])
    return values
