"""FedAvg: McMahan et al. 2017, "Communication-Efficient Learning of Deep Networks from Decentralized Data"."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from edgefl_server.aggregation.hyperparameters import part
from edgefl_server.aggregation.server_optimizers import SERVER_OPTIMIZERS, ServerOptimizer
from edgefl_server.aggregation.strategies.averaging import Averaging
from edgefl_server.aggregation.strategies.base import STRATEGIES

__all__ = ["FedAvg"]


@STRATEGIES.register("fedavg")
@dataclass(frozen=True, kw_only=True)
class FedAvg(Averaging):
    """Federated averaging (McMahan et al. 2017, Algorithm 1), on deltas instead of weights.

    ``w + Σ nₖ Δₖ / Σ nₖ`` equals the paper's ``Σ nₖ wₖ / Σ nₖ``, since every device started from ``w``. Another server
    optimizer or rule may be chosen.

    Attributes:
        server_optimizer: moves the weights along the average.
    """

    summary: ClassVar[str] = "where to begin (McMahan et al. 2017)"

    server_optimizer: ServerOptimizer = part(
        SERVER_OPTIMIZERS, "sgd", help="What moves the weights along the average: {names}."
    )

    @property
    def optimizer(self) -> ServerOptimizer:
        """See `Averaging`."""
        return self.server_optimizer
