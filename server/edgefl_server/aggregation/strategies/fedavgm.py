"""FedAvgM.

Hsu et al. 2019, "Measuring the Effects of Non-Identical Data Distribution for Federated Visual Classification".
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from edgefl_server.aggregation.hyperparameters import part
from edgefl_server.aggregation.server_optimizers import SERVER_OPTIMIZERS, ServerOptimizer
from edgefl_server.aggregation.strategies.base import STRATEGIES
from edgefl_server.aggregation.strategies.fedavg import FedAvg

__all__ = ["FedAvgM"]


@STRATEGIES.register("fedavgm")
@dataclass(frozen=True, kw_only=True)
class FedAvgM(FedAvg):
    """`FedAvg` whose server has momentum (section 4.3)."""

    summary: ClassVar[str] = "unlike data: the server has momentum (Hsu et al. 2019)"

    server_optimizer: ServerOptimizer = part(SERVER_OPTIMIZERS, "momentum", fixed=True)
