"""Averages of updates: the rule by which each counts is a part of its own, and the sum streams.

Sums run in float64 because float32 sums depend on their order in most elements, and in the order of the fold.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgefl_server.aggregation.updates import Update, Updates

__all__ = ["Average", "Weighting", "average", "by_examples", "equally"]

Weighting = Callable[[Update], float]
"""The amount for which an update counts in an average; above 0."""


def by_examples(update: Update) -> float:
    """Each counts for its examples: FedAvg, McMahan et al. 2017, Algorithm 1."""
    return float(update.num_examples)


def equally(update: Update) -> float:
    """Each counts the same, as in SCAFFOLD and FedDyn."""
    return 1.0


@dataclass(frozen=True)
class Average:
    """A weighted average that has not been divided yet, so that a factor costs no rounding of its own.

    Attributes:
        total: float64 ``[size]``: sum of weight × vector.
        weight: sum of the weights, above 0.
    """

    total: NDArray[np.float64]
    weight: float

    def mean(self) -> NDArray[np.float64]:
        """The average, float64 ``[size]``."""
        return self.total / self.weight

    def scaled(self, factor: float) -> NDArray[np.float64]:
        """The average times a factor, float64 ``[size]``."""
        return self.total * (factor / self.weight)


def average(updates: Updates, weightings: Mapping[str, Weighting]) -> dict[str, Average]:
    """Averages sections of all updates; each is read once.

    Args:
        updates: at least one.
        weightings: how each section is weighted, by its name.

    Returns:
        The averages by name; one without elements where the updates have no such section.
    """
    totals: dict[str, NDArray[np.float64]] = {}
    products: dict[str, NDArray[np.float64]] = {}
    weights = dict.fromkeys(weightings, 0.0)
    for update in updates:
        for name, weighting in weightings.items():
            vector, weight = update.section(name), weighting(update)
            if name not in totals:
                totals[name], products[name] = np.zeros(vector.size), np.empty(vector.size)
            total, product = totals[name], products[name]
            # In place: two vectors of float64 for each of thousands of updates would cost more than the sums.
            total += np.multiply(vector, weight, out=product, dtype=np.float64)
            weights[name] += weight
    return {name: Average(total, weights[name]) for name, total in totals.items()}
