"""FedSGD: McMahan et al. 2017, section 2: one step of the server along the devices' gradients."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from edgefl.manifest import ModelManifest
from edgefl_server.aggregation.averaging import Average
from edgefl_server.aggregation.hyperparameters import SMALLEST, STEP_HINT, STEPS, SettingError, setting
from edgefl_server.aggregation.server_optimizers import ServerOptimizer, Sgd
from edgefl_server.aggregation.strategies.averaging import Averaging
from edgefl_server.aggregation.strategies.base import STRATEGIES, Strategy

__all__ = ["FedSGD"]


@STRATEGIES.register("fedsgd")
@dataclass(frozen=True, kw_only=True)
class FedSGD(Averaging):
    """``w ← w - η Σ nₖ gₖ / Σ nₖ``, ``gₖ`` being the gradient at ``w`` over all data of device k.

    Attributes:
        server_learning_rate: η; None: the model's.
    """

    section: ClassVar[str] = "gradient"
    algorithm: ClassVar[str] = "fedsgd"
    summary: ClassVar[str] = "the baseline: one gradient a device and round (McMahan et al. 2017)"
    model: ClassVar[str] = "no moving averages, no local parameters"
    unused: ClassVar[tuple[str, ...]] = ("epochs", "max_steps", "learning_rate", "batch_size")

    server_learning_rate: float | None = setting(
        None,
        help="The server's own step",
        shown="the model's",
        lowest=SMALLEST,
        usual=STEPS,
        why=STEP_HINT,
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

    @property
    def optimizer(self) -> ServerOptimizer:
        """See `Averaging`.

        Raises:
            SettingError: nobody said with which learning rate.
        """
        if self.server_learning_rate is None:
            raise SettingError("{strategy} fedsgd expects a {server_learning_rate} above 0.")
        return _Downhill(self.server_learning_rate)


@dataclass(frozen=True)
class _Downhill(Sgd):
    """Goes against a gradient instead of along a delta."""

    def step(
        self, average: Average, slots: Mapping[str, NDArray[np.float32]]
    ) -> tuple[NDArray[np.float64], dict[str, NDArray[np.float32]]]:
        """See `ServerOptimizer`."""
        change, after = super().step(average, slots)
        return np.negative(change, out=change), after
