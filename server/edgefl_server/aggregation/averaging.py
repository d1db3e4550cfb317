"""Averages of updates: the rule by which each counts is a part of its own, and the sum streams.

Sums run in float64 because float32 sums depend on their order in most elements, and in the order of the fold. They go
over pieces of elements that stay in the cache, several updates at a time; each element has its sum in the same order as
one update after the other, and so the same bits, on every machine.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgefl.errors import RunError
from edgefl_server.aggregation.updates import FoldError, Update, Updates

__all__ = ["Average", "Weighting", "average", "by_examples", "equally", "pieces"]

Weighting = Callable[[Update], float]
"""The amount for which an update counts in an average; above 0."""
_PIECE = 1 << 15
"""Elements whose sum and terms fit into a core's own cache."""
_ADDED = 1 << 14
"""Elements of a piece of which `_ROWS` updates are added up in one go: fewer, since all of these are in the cache."""
_ROWS = 16
_EXACT = 1 << 29
"""A whole number below this times a float32 is exact in float64: it is rounded once, fused with the sum or not."""


def by_examples(update: Update) -> float:
    """Each counts for its examples: FedAvg, McMahan et al. 2017, Algorithm 1."""
    return float(update.num_examples)


def equally(update: Update) -> float:
    """Each counts the same, as in SCAFFOLD and FedDyn."""
    return 1.0


def pieces(size: int, length: int = _PIECE) -> Iterator[slice]:
    """Divides a vector of a size into parts that stay in the cache while they are worked on."""
    for start in range(0, size, length):
        yield slice(start, min(start + length, size))


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

    def used_up(self, factor: float | None = None) -> NDArray[np.float64]:
        """The result of `mean` or `scaled`, in the memory of the total, which is gone then."""
        if factor is None:
            return np.divide(self.total, self.weight, out=self.total)
        return np.multiply(self.total, factor / self.weight, out=self.total)


def average(updates: Updates, weightings: Mapping[str, Weighting]) -> dict[str, Average]:
    """Averages sections of all updates; each is read once.

    Args:
        updates: at least one.
        weightings: how each section is weighted, by its name.

    Returns:
        The averages by name; one without elements where the updates have no such section.

    Raises:
        FoldError: the weights of a section add up to nothing.
    """
    totals: dict[str, NDArray[np.float64]] = {}
    weights = dict.fromkeys(weightings, 0.0)
    room = _Room()
    for group in updates.groups():
        for name, weighting in weightings.items():
            factors = [weighting(update) for update in group]
            for factor in factors:
                weights[name] += factor
            size = group[0].size(name)
            if name not in totals:
                totals[name] = np.zeros(size)
            if totals[name].size != size or any(each.size(name) != size for each in group):
                raise RunError(f"The updates of a fold expect as many elements of {name!r}, got other numbers.")
            for part in pieces(size, _ADDED):
                for start in range(0, len(group), _ROWS):
                    several = slice(start, start + _ROWS)
                    room.add(totals[name][part], group[several], factors[several], name, part)
    for name, weight in weights.items():
        if not (weight > 0 and math.isfinite(weight)):
            raise FoldError(f"the weights of all updates add up to {weight:g} in {name!r}: there is no average")
    return {name: Average(total, weights[name]) for name, total in totals.items()}


class _Room:
    """Memory in which pieces of some updates lie below each other, float64, under the sum so far."""

    def __init__(self) -> None:
        self._read = np.empty(_ADDED, np.float32)
        self._rows = np.zeros((_ROWS + 1, _ADDED))
        self._sum = np.empty(_ADDED)

    def add(
        self, total: NDArray[np.float64], updates: Sequence[Update], factors: Sequence[float], name: str, part: slice
    ) -> None:
        """Adds factors × pieces to a piece of a total, in place, one after the other."""
        # A single column would be added up in another order: there are always two.
        rows = self._rows[: len(updates) + 1, : max(2, total.size)]
        rows[0, : total.size] = total
        for row, update in zip(rows[1:], updates, strict=True):
            row[: total.size] = update.piece(name, part, self._read[: total.size])
        counts = np.array([1.0, *factors])
        if any(factor >= _EXACT or factor % 1 for factor in factors):
            rows[1:] *= counts[1:, None]
            counts[:] = 1
        # Goes along the rows, and to the next when one is done; a dot product's order is the processor's.
        total[...] = np.einsum("i,ij->j", counts, rows, out=self._sum[: rows.shape[1]])[: total.size]
