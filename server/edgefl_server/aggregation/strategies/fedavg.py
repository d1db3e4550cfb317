"""FedAvg: McMahan et al. 2017, "Communication-Efficient Learning of Deep Networks from Decentralized Data"."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from edgefl_server.aggregation.averaging import average, by_examples
from edgefl_server.aggregation.server_optimizers import ServerOptimizer, Sgd
from edgefl_server.aggregation.strategies.base import STRATEGIES, Cohort, Strategy, StrategyState
from edgefl_server.aggregation.updates import Updates

__all__ = ["FedAvg"]


@STRATEGIES.register("fedavg")
@dataclass(frozen=True)
class FedAvg(Strategy):
    """Federated averaging (McMahan et al. 2017, Algorithm 1), on deltas instead of weights.

    ``w + Σ nₖ Δₖ / Σ nₖ`` equals the paper's ``Σ nₖ wₖ / Σ nₖ``, since every device started from ``w``. Statistics are
    averaged with the same weights, which keeps variances positive.
    """

    summary: ClassVar[str] = "where to begin (McMahan et al. 2017)"

    @property
    def optimizer(self) -> ServerOptimizer:
        """The server optimizer, which moves the weights along the average."""
        return Sgd()

    def init(self, weights: NDArray[np.float32], weight_size: int) -> StrategyState:
        """See `Strategy`."""
        return StrategyState(weights, weight_size, self.optimizer.init(weight_size))

    def apply(self, state: StrategyState, updates: Updates, cohort: Cohort) -> tuple[StrategyState, dict[str, float]]:
        """See `Strategy`."""
        averages = average(updates, {"delta": by_examples, "statistics": by_examples})
        change, slots = self.optimizer.step(averages["delta"], state.slots)
        return state.moved(change, averages["statistics"].mean(), slots)
