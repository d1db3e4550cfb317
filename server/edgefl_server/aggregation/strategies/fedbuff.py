"""FedBuff: Nguyen et al. 2022, "Federated Learning with Buffered Asynchronous Aggregation"."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from edgefl_server.aggregation.averaging import average, by_examples, equally
from edgefl_server.aggregation.hyperparameters import SMALLEST, setting
from edgefl_server.aggregation.server_optimizers import Sgd
from edgefl_server.aggregation.strategies.base import STRATEGIES, Cohort, Strategy, StrategyState
from edgefl_server.aggregation.updates import Updates

__all__ = ["FedBuff"]


@STRATEGIES.register("fedbuff")
@dataclass(frozen=True)
class FedBuff(Strategy):
    """Algorithm 1, line 11 to 13: ``w ← w + η_g/K Σ s(τ) Δ``, over the K updates of a fold.

    As in the paper every update counts the same, whatever its device's number of examples; statistics, which the paper
    does not know, are weighted by it. s(τ) is in the updates already, see `staleness`.

    Attributes:
        server_learning_rate: η_g.
    """

    summary: ClassVar[str] = "a buffer, `--schedule buffered`: nobody waits for slow devices (Nguyen et al. 2022)"

    server_learning_rate: float = setting(
        1.0,
        help="The server's own step",
        shown="1",
        lowest=SMALLEST,
        usual=(SMALLEST, 1e6),
        why="Usual ones are below 10.",
        table="1 unless given",
    )

    def apply(self, state: StrategyState, updates: Updates, cohort: Cohort) -> tuple[StrategyState, dict[str, float]]:
        """See `Strategy`."""
        averages = average(updates, {"delta": equally, "statistics": by_examples})
        change, _ = Sgd(self.server_learning_rate).step(averages["delta"], {})
        return state.moved(change, averages["statistics"].mean())
