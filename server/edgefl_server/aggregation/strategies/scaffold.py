"""SCAFFOLD: Karimireddy et al. 2020, "SCAFFOLD: Stochastic Controlled Averaging for Federated Learning"."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from edgefl.algorithms import CONTROL
from edgefl_server.aggregation.averaging import average, by_examples, equally
from edgefl_server.aggregation.hyperparameters import SMALLEST, STEP_HINT, STEPS, setting
from edgefl_server.aggregation.server_optimizers import Sgd
from edgefl_server.aggregation.strategies.base import STRATEGIES, Cohort, Strategy, StrategyState
from edgefl_server.aggregation.updates import Updates

__all__ = ["Scaffold"]


@STRATEGIES.register("scaffold")
@dataclass(frozen=True)
class Scaffold(Strategy):
    """Algorithm 1 with option II, the server's side (lines 16 and 17).

    ``x ← x + η_g mean(Δy)`` and ``c ← c + |S|/N mean(Δc)``. As in the paper every device counts the same, whatever its
    number of examples; statistics, which the paper does not know, are weighted by it. N is the number of devices that
    are enrolled in the population when the round closes; ``c`` is the slot ``control``.

    Attributes:
        server_learning_rate: η_g.
    """

    algorithm: ClassVar[str] = "scaffold"
    summary: ClassVar[str] = (
        "unlike data, the same devices again and again: corrects each device's drift (Karimireddy et al. 2020)"
    )
    excluded: ClassVar[Mapping[str, str]] = MappingProxyType(
        {
            "clip_norm": "its corrections presume what was really trained",
            **dict.fromkeys(
                ("rule", "pre_aggregation", "weighting", "server_optimizer"),
                "the devices' corrections add up to nothing only under the plain mean of what they have trained",
            ),
        }
    )

    server_learning_rate: float = setting(
        1.0,
        help="The server's own step",
        shown="1",
        lowest=SMALLEST,
        usual=STEPS,
        why=STEP_HINT,
        table="1 unless given",
    )

    def init(self, weights: NDArray[np.float32], weight_size: int) -> StrategyState:
        """See `Strategy`; ``c`` starts at zero, as the devices' ``c_i`` do."""
        return StrategyState(weights, weight_size, {CONTROL: np.zeros(weight_size, np.float32)})

    def apply(self, state: StrategyState, updates: Updates, cohort: Cohort) -> tuple[StrategyState, dict[str, float]]:
        """See `Strategy`."""
        averages = average(updates, {"delta": equally, "statistics": by_examples, CONTROL: equally})
        change, _ = Sgd(self.server_learning_rate).step(averages["delta"], {})
        control = state.slots[CONTROL] + averages[CONTROL].total / cohort.size(updates)
        return state.moved(change, averages["statistics"].mean(), {CONTROL: control.astype(np.float32)})
