"""FedAvg: McMahan et al. 2017, "Communication-Efficient Learning of Deep Networks from Decentralized Data"."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgefl_server.aggregation.strategies.base import Accumulator, Demand, StrategyState, Update, add, diagnostics

__all__ = ["FedAvg"]


@dataclass(frozen=True)
class FedAvg:
    """Federated averaging (McMahan et al. 2017, Algorithm 1), on deltas instead of weights.

    ``w + Σ nₖ Δₖ / Σ nₖ`` equals the paper's ``Σ nₖ wₖ / Σ nₖ``, since every device started from ``w``. The sum runs in
    float64 because float32 sums depend on their order in most elements. Statistics are averaged with the same weights,
    which keeps variances positive.
    """

    @property
    def demand(self) -> Demand:
        """See `Strategy`."""
        return Demand()

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
        return add(accumulator, update, float(update.num_examples))

    def finish(self, state: StrategyState, accumulator: Accumulator) -> tuple[StrategyState, dict[str, float]]:
        """See `Strategy`; a round without outcomes leaves the weights as they are."""
        if accumulator.weight == 0:
            return state, diagnostics(accumulator, np.zeros(0))
        mean = accumulator.total / accumulator.weight
        weights = (state.weights.astype(np.float64) + mean).astype(np.float32)
        return StrategyState(weights, state.slots), diagnostics(accumulator, mean)
