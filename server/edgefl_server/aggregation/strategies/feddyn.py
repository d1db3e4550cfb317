"""FedDyn: Acar et al. 2021, "Federated Learning Based on Dynamic Regularization"."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from edgefl.algorithms import algorithm
from edgefl_server.aggregation.averaging import average, by_examples, equally
from edgefl_server.aggregation.hyperparameters import SMALLEST, setting
from edgefl_server.aggregation.strategies.base import STRATEGIES, Cohort, Demand, Strategy, StrategyState
from edgefl_server.aggregation.updates import Updates

__all__ = ["FedDyn"]

_H = "h"


@STRATEGIES.register("feddyn")
@dataclass(frozen=True)
class FedDyn(Strategy):
    """Algorithm 1, the server's side.

    ``h ← h - α/m Σ (θ_k - θ)`` over the round's devices, then ``θ ← mean(θ_k) - h/α``. As in the paper every device
    counts the same; statistics, which the paper does not know, are weighted by num_examples. m is the number of devices
    that are enrolled in the population when the round closes.

    Attributes:
        mu: α, above 0.
    """

    algorithm: ClassVar[str] = "feddyn"
    summary: ClassVar[str] = "the same as scaffold, with any optimizer (Acar et al. 2021)"
    excluded: ClassVar[Mapping[str, str]] = MappingProxyType(
        {
            "clip_norm": "its corrections presume what was really trained",
            **dict.fromkeys(
                ("rule", "pre_aggregation", "weighting", "server_optimizer"),
                "the devices' corrections add up to nothing only under the plain mean of what they have trained",
            ),
        }
    )

    mu: float = setting(
        help="FedDyn's alpha",
        lowest=SMALLEST,
        usual=(1e-9, 1e6),
        hint="Start with {mu} 0.01.",
        table="its α, above 0; try 0.01 to 0.1",
    )

    @property
    def demand(self) -> Demand:
        """See `Strategy`."""
        return Demand(algorithm(self.algorithm), self.mu)

    def init(self, weights: NDArray[np.float32], weight_size: int) -> StrategyState:
        """See `Strategy`; ``h`` starts at zero, as the devices' do."""
        return StrategyState(weights, weight_size, {_H: np.zeros(weight_size, np.float32)})

    def apply(self, state: StrategyState, updates: Updates, cohort: Cohort) -> tuple[StrategyState, dict[str, float]]:
        """See `Strategy`."""
        averages = average(updates, {"delta": equally, "statistics": by_examples})
        delta = averages["delta"]
        h = state.slots[_H] - self.mu / cohort.size(updates) * delta.total
        return state.moved(delta.mean() - h / self.mu, averages["statistics"].mean(), {_H: h.astype(np.float32)})
