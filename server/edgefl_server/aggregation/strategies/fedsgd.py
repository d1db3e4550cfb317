"""FedSGD: McMahan et al. 2017, section 2: one step of the server along the devices' gradients."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from edgefl.manifest import ModelManifest
from edgefl_server.aggregation.averaging import Average, average, by_examples
from edgefl_server.aggregation.hyperparameters import SMALLEST, SettingError, setting
from edgefl_server.aggregation.server_optimizers import Sgd
from edgefl_server.aggregation.strategies.base import STRATEGIES, Cohort, Strategy, StrategyState
from edgefl_server.aggregation.updates import Updates

__all__ = ["FedSGD"]


@STRATEGIES.register("fedsgd")
@dataclass(frozen=True)
class FedSGD(Strategy):
    """``w ← w - η Σ nₖ gₖ / Σ nₖ``, ``gₖ`` being the gradient at ``w`` over all data of device k.

    Attributes:
        server_learning_rate: η; None: the model's.
    """

    algorithm: ClassVar[str] = "fedsgd"
    summary: ClassVar[str] = "the baseline: one gradient a device and round (McMahan et al. 2017)"
    model: ClassVar[str] = "no moving averages, no local parameters"
    unused: ClassVar[tuple[str, ...]] = ("epochs", "max_steps", "learning_rate", "batch_size")

    server_learning_rate: float | None = setting(
        None,
        help="The server's own step",
        shown="the model's",
        lowest=SMALLEST,
        usual=(SMALLEST, 1e6),
        why="Usual ones are below 10.",
        table="the model's unless given",
    )

    def settled(self, manifest: ModelManifest, learning_rate: float) -> Strategy:
        """See `Strategy`."""
        untrained = [each.name for each in manifest.parameters if not each.shared or each.role != "weight"]
        if untrained:
            raise SettingError(
                f"{{strategy}} fedsgd only moves shared weights; {untrained[0]!r} would stay as it is for ever.",
                hint="Use another strategy, or convert the model without local parameters and moving averages.",
            )
        if self.server_learning_rate is not None:
            return self
        if not learning_rate > 0:
            raise SettingError("{strategy} fedsgd expects a {server_learning_rate} above 0: the model's is 0.")
        return replace(self, server_learning_rate=manifest.learning_rate)

    def apply(self, state: StrategyState, updates: Updates, cohort: Cohort) -> tuple[StrategyState, dict[str, float]]:
        """See `Strategy`.

        Raises:
            SettingError: nobody said with which learning rate.
        """
        if self.server_learning_rate is None:
            raise SettingError("{strategy} fedsgd expects a {server_learning_rate} above 0.")
        gradient = average(updates, {"gradient": by_examples})["gradient"]
        downhill = Average(np.negative(gradient.total, out=gradient.total), gradient.weight)
        change, slots = Sgd(self.server_learning_rate).step(downhill, state.slots)
        return state.moved(change, np.zeros(0), slots)
