"""FedAsync: Xie et al. 2019, "Asynchronous Federated Optimization"."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from edgefl_server.aggregation.averaging import average, equally
from edgefl_server.aggregation.hyperparameters import SMALLEST, setting
from edgefl_server.aggregation.strategies.base import STRATEGIES, Cohort, Strategy, StrategyState
from edgefl_server.aggregation.updates import Updates

__all__ = ["FedAsync"]


@STRATEGIES.register("fedasync")
@dataclass(frozen=True)
class FedAsync(Strategy):
    """Algorithm 1, the updater: ``x ← (1 - α s(τ)) x + α s(τ) x_new`` for each model that comes; statistics likewise.

    The update is what `mixes_models` makes of it: x_new - x; s(τ) is in it already. With more than one a fold, their
    changes are averaged.

    Attributes:
        mixing: α.
    """

    summary: ClassVar[str] = (
        "every update by itself, `--schedule buffered --target 1`: mixes models as they come (Xie et al. 2019)"
    )
    mixes_models: ClassVar[bool] = True
    of_buffers: ClassVar[bool] = True

    mixing: float = setting(
        0.6,
        help="FedAsync's alpha: the share of a fresh model in the mixture",
        shown="0.6",
        lowest=SMALLEST,
        highest=1,
        usual=(1e-6, 1),
        why="With less no weight changes.",
        table="its α, 0.6 unless given",
    )

    def apply(self, state: StrategyState, updates: Updates, cohort: Cohort) -> tuple[StrategyState, dict[str, float]]:
        """See `Strategy`."""
        averages = average(updates, {"delta": equally, "statistics": equally})
        return state.moved(averages["delta"].scaled(self.mixing), averages["statistics"].scaled(self.mixing))
