"""Statistics of the devices' data, from what each of them sums up: equal to those of the pooled data."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from edgefl.errors import RunError
from edgefl.summaries import ArraySummary, Summary
from edgefl_server.aggregation.folding import Folded
from edgefl_server.aggregation.strategies import StrategyState
from edgefl_server.aggregation.updates import Contribution

__all__ = ["SHARES", "fold_statistics"]

SHARES = (0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99)
"""The quantiles that are told."""


def fold_statistics(before: StrategyState, contributions: Sequence[Contribution], inputs: Sequence[str]) -> Folded:
    """Adds up what devices say of their data; the weights stay as they are.

    That there are enough devices is the minimum's to say, without which there is no fold.

    Args:
        before: the weights of the run.
        contributions: in the order of a fold; only the last digit of a sum could depend on it.
        inputs: the names of the model's inputs, in its order.

    Returns:
        The fold, with ``statistics`` among its findings: ``rows``, ``devices``, ``inputs`` and, for every input and
        target of the model, ``shape``, ``count``, and lists of ``sums``, ``mean``, ``variance``, ``low``, ``high``;
        ``quantiles`` by share where rows have at most 64 features, ``values`` with the count of each where they are
        whole numbers.

    Raises:
        RunError: a contribution holds no summary, or one of other arrays.
        EdgeflError: what reading a contribution raises.
    """
    total: Summary | None = None
    for each in contributions:
        summary = each.read().summary
        if summary is None:
            raise RunError(f"The outcome of task {each.task_id} holds no summary of data.")
        try:
            total = summary if total is None else total.merged(summary)
        except ValueError as error:
            raise RunError(f"The summary of task {each.task_id} does not fit the others: {error}.") from error
    if total is None:
        raise RunError("Statistics expect at least one device.")
    found = {
        "rows": total.rows,
        "devices": len(contributions),
        "inputs": list(inputs),
        "arrays": {name: _told(each) for name, each in total.arrays.items()},
    }
    return Folded(before, total.rows, {}, {"outcomes": float(len(contributions))}, {"statistics": found})


def _told(array: ArraySummary) -> dict[str, Any]:
    vectors = ("sums", "mean", "variance", "low", "high")
    told: dict[str, Any] = {"shape": list(array.shape), "count": array.count}
    told |= {name: getattr(array, name).tolist() for name in vectors}
    quantiles = array.quantiles(SHARES)
    if quantiles is not None:
        told["quantiles"] = {f"{share:g}": [each[place] for each in quantiles] for place, share in enumerate(SHARES)}
    if array.values is not None:
        told["values"] = [[value, array.values[value]] for value in sorted(array.values)]
    return told
