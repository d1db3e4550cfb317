"""SCAFFOLD: Karimireddy et al. 2020, "SCAFFOLD: Stochastic Controlled Averaging for Federated Learning"."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgefl.wire.messages import Correction
from edgefl_server.aggregation.strategies.base import Accumulator, Demand, StrategyState, Update, add, diagnostics

__all__ = ["Scaffold"]

_CONTROL = "control"


@dataclass(frozen=True)
class Scaffold:
    """Algorithm 1 with option II, the server's side (lines 16 and 17).

    ``x ← x + η_g mean(Δy)`` and ``c ← c + |S|/N mean(Δc)``. As in the paper every device counts the same, whatever its
    number of examples; statistics, which the paper does not know, are weighted by it. N is the number of devices that
    are enrolled in the population when the round closes.

    Attributes:
        weight_size: elements of the weight section, of ``c`` too.
        enrolled: N; at least the devices of a round are counted.
        server_learning_rate: η_g.
    """

    weight_size: int
    enrolled: int
    server_learning_rate: float = 1.0

    @property
    def demand(self) -> Demand:
        """See `Strategy`."""
        return Demand(correction=Correction.SCAFFOLD, sections=("delta", "statistics", _CONTROL), vectors=(_CONTROL,))

    def init(self, weights: NDArray[np.float32]) -> StrategyState:
        """See `Strategy`; ``c`` starts at zero, as the devices' ``c_i`` do."""
        return StrategyState(weights, {_CONTROL: np.zeros(self.weight_size, np.float32)})

    def start(self, state: StrategyState) -> Accumulator:
        """See `Strategy`."""
        return Accumulator(np.zeros(state.weights.shape, np.float64), control=np.zeros(self.weight_size, np.float64))

    def fold(self, accumulator: Accumulator, update: Update) -> Accumulator:
        """See `Strategy` and `add`."""
        return add(accumulator, update, float(update.num_examples), uniform=True)

    def finish(self, state: StrategyState, accumulator: Accumulator) -> tuple[StrategyState, dict[str, float]]:
        """See `Strategy`; a round without outcomes leaves the state as it is."""
        if accumulator.outcomes == 0 or accumulator.control is None:
            return state, diagnostics(accumulator, np.zeros(0))
        moved, split = accumulator.total, self.weight_size
        moved[:split] *= self.server_learning_rate / accumulator.outcomes
        moved[split:] /= accumulator.weight
        control = state.slots[_CONTROL] + accumulator.control / max(self.enrolled, accumulator.outcomes)
        weights = (state.weights.astype(np.float64) + moved).astype(np.float32)
        return StrategyState(weights, {_CONTROL: control.astype(np.float32)}), diagnostics(accumulator, moved)
