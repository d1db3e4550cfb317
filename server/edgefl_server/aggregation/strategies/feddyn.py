"""FedDyn: Acar et al. 2021, "Federated Learning Based on Dynamic Regularization"."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgefl.wire.messages import Correction
from edgefl_server.aggregation.strategies.base import Accumulator, Demand, StrategyState, Update, add, diagnostics

__all__ = ["FedDyn"]

_H = "h"


@dataclass(frozen=True)
class FedDyn:
    """Algorithm 1, the server's side.

    ``h ← h - α/m Σ (θ_k - θ)`` over the round's devices, then ``θ ← mean(θ_k) - h/α``. As in the paper every device
    counts the same; statistics, which the paper does not know, are weighted by num_examples. m is the number of devices
    that are enrolled in the population when the round closes.

    Attributes:
        weight_size: elements of the weight section, of ``h`` too.
        enrolled: m; at least the devices of a round are counted.
        alpha: above 0.
    """

    weight_size: int
    enrolled: int
    alpha: float

    @property
    def demand(self) -> Demand:
        """See `Strategy`."""
        return Demand(mu=self.alpha, correction=Correction.FEDDYN)

    def init(self, weights: NDArray[np.float32]) -> StrategyState:
        """See `Strategy`; ``h`` starts at zero, as the devices' do."""
        return StrategyState(weights, {_H: np.zeros(self.weight_size, np.float32)})

    def start(self, state: StrategyState) -> Accumulator:
        """See `Strategy`."""
        return Accumulator(np.zeros(state.weights.shape, np.float64))

    def fold(self, accumulator: Accumulator, update: Update) -> Accumulator:
        """See `Strategy` and `add`."""
        return add(accumulator, update, float(update.num_examples), uniform=True)

    def finish(self, state: StrategyState, accumulator: Accumulator) -> tuple[StrategyState, dict[str, float]]:
        """See `Strategy`; a round without outcomes leaves the state as it is."""
        if accumulator.outcomes == 0:
            return state, diagnostics(accumulator, np.zeros(0))
        moved, split = accumulator.total, self.weight_size
        h = state.slots[_H] - self.alpha / max(self.enrolled, accumulator.outcomes) * moved[:split]
        moved[:split] = moved[:split] / accumulator.outcomes - h / self.alpha
        moved[split:] /= accumulator.weight
        weights = (state.weights.astype(np.float64) + moved).astype(np.float32)
        return StrategyState(weights, {_H: h.astype(np.float32)}), diagnostics(accumulator, moved)
