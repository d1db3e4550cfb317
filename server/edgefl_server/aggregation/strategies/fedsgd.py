"""FedSGD: McMahan et al. 2017, section 2: one step of the server along the devices' gradients."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgefl.wire.messages import TaskKind
from edgefl_server.aggregation.strategies.base import Accumulator, Demand, StrategyState, Update, add, diagnostics

__all__ = ["FedSGD"]


@dataclass(frozen=True)
class FedSGD:
    """``w ← w - η Σ nₖ gₖ / Σ nₖ``, ``gₖ`` being the gradient at ``w`` over all data of device k.

    Attributes:
        server_learning_rate: η.
    """

    server_learning_rate: float

    @property
    def demand(self) -> Demand:
        """See `Strategy`."""
        return Demand(kind=TaskKind.GRADIENT, sections=("gradient",))

    def init(self, weights: NDArray[np.float32]) -> StrategyState:
        """See `Strategy`."""
        return StrategyState(weights)

    def start(self, state: StrategyState) -> Accumulator:
        """See `Strategy`."""
        return Accumulator(np.zeros(state.weights.shape, np.float64))

    def fold(self, accumulator: Accumulator, update: Update) -> Accumulator:
        """See `Strategy` and `add`."""
        return add(accumulator, update, float(update.num_examples))

    def finish(self, state: StrategyState, accumulator: Accumulator) -> tuple[StrategyState, dict[str, float]]:
        """See `Strategy`; a round without outcomes leaves the weights as they are."""
        if accumulator.weight == 0:
            return state, diagnostics(accumulator, np.zeros(0))
        moved = accumulator.total * (-self.server_learning_rate / accumulator.weight)
        weights = (state.weights.astype(np.float64) + moved).astype(np.float32)
        return StrategyState(weights, state.slots), diagnostics(accumulator, moved)
