"""Strategies: how the outcomes of a round become new weights. Pure: values in, values out.

A strategy has three functions (the shape is FedJAX's, Ro et al. 2021): ``init(weights) -> state``,
``fold(accumulator, update) -> accumulator`` for one outcome after the other, ``finish(state, accumulator) -> state,
diagnostics``. The caller folds in task-id order, so that the result does not depend on arrival.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from edgefl.errors import RunError

__all__ = ["Accumulator", "FedAvg", "Strategy", "StrategyState", "Update"]


@dataclass(frozen=True)
class Update:
    """One device's contribution, decoded and validated.

    Attributes:
        task_id: whose; the order of folding.
        num_examples: as the device says, not yet capped.
        delta: float32 ``[weight_size]``: trained minus received, of role ``weight``.
        statistics: float32 ``[statistic_size]``: the same of role ``statistic``; empty where there are none.
    """

    task_id: str
    num_examples: int
    delta: NDArray[np.float32]
    statistics: NDArray[np.float32]


@dataclass(frozen=True)
class StrategyState:
    """What a strategy keeps from round to round.

    Attributes:
        weights: float32 ``[size]``: the weight section, then the statistic section.
        slots: further vectors by name, for strategies with a memory.
    """

    weights: NDArray[np.float32]
    slots: dict[str, NDArray[np.float64]] = field(default_factory=dict)


@dataclass(frozen=True)
class Accumulator:
    """A running weighted sum.

    Attributes:
        total: float64 ``[size]``: sum of weight × (delta, statistics).
        weight: sum of the weights.
        outcomes: how many were folded.
        last: task id of the latest, to catch a caller that folds in another order.
    """

    total: NDArray[np.float64]
    weight: float = 0.0
    outcomes: int = 0
    last: str = ""


class Strategy(Protocol):
    """What the server asks of a strategy."""

    def init(self, weights: NDArray[np.float32]) -> StrategyState:
        """The state before the first round."""
        ...

    def start(self, state: StrategyState) -> Accumulator:
        """An empty accumulator for one round."""
        ...

    def fold(self, accumulator: Accumulator, update: Update) -> Accumulator:
        """Takes one outcome in; the given accumulator must not be used afterwards."""
        ...

    def finish(self, state: StrategyState, accumulator: Accumulator) -> tuple[StrategyState, dict[str, float]]:
        """The state after the round, and figures about it."""
        ...


@dataclass(frozen=True)
class FedAvg:
    """Federated averaging (McMahan et al. 2017, Algorithm 1), on deltas instead of weights.

    ``w + Σ nₖ Δₖ / Σ nₖ`` equals the paper's ``Σ nₖ wₖ / Σ nₖ``, since every device started from ``w``. The sum runs in
    float64 because float32 sums depend on their order in most elements. Statistics are averaged with the same weights,
    which keeps variances positive.

    Attributes:
        max_examples: ``nₖ`` is the device's word and counts for at most this many.
    """

    max_examples: int = 100_000

    def init(self, weights: NDArray[np.float32]) -> StrategyState:
        """See `Strategy`."""
        return StrategyState(weights)

    def start(self, state: StrategyState) -> Accumulator:
        """See `Strategy`."""
        return Accumulator(np.zeros(state.weights.shape, np.float64))

    def fold(self, accumulator: Accumulator, update: Update) -> Accumulator:
        """See `Strategy`.

        Raises:
            RunError: the outcomes do not come in ascending order of their task ids.
        """
        if update.task_id <= accumulator.last:
            raise RunError(f"Outcomes are folded in task-id order, got {update.task_id} after {accumulator.last}.")
        weight = float(min(update.num_examples, self.max_examples))
        total, split = accumulator.total, update.delta.size
        # In place: two vectors of float64 for each of thousands of outcomes would cost more than the sums.
        total[:split] += np.multiply(update.delta, weight, dtype=np.float64)
        total[split:] += np.multiply(update.statistics, weight, dtype=np.float64)
        return Accumulator(total, accumulator.weight + weight, accumulator.outcomes + 1, update.task_id)

    def finish(self, state: StrategyState, accumulator: Accumulator) -> tuple[StrategyState, dict[str, float]]:
        """See `Strategy`; a round without outcomes leaves the weights as they are."""
        if accumulator.weight == 0:
            return state, {"outcomes": 0.0, "weight": 0.0, "update_norm": 0.0}
        mean = accumulator.total / accumulator.weight
        weights = (state.weights.astype(np.float64) + mean).astype(np.float32)
        diagnostics = {
            "outcomes": float(accumulator.outcomes),
            "weight": accumulator.weight,
            "update_norm": float(np.sqrt(np.dot(mean, mean))),
        }
        return StrategyState(weights, state.slots), diagnostics
