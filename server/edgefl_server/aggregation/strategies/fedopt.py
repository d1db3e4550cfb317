"""FedAdagrad, FedAdam and FedYogi: Reddi et al. 2021, "Adaptive Federated Optimization", Algorithm 2.

The paper weights devices by their examples, as FedAvg does, and devices train with plain SGD.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from edgefl_server.aggregation.hyperparameters import part
from edgefl_server.aggregation.server_optimizers import SERVER_OPTIMIZERS, ServerOptimizer
from edgefl_server.aggregation.strategies.base import STRATEGIES
from edgefl_server.aggregation.strategies.fedavg import FedAvg

__all__ = ["FedAdagrad", "FedAdam", "FedYogi"]


@STRATEGIES.register("fedadagrad")
@dataclass(frozen=True, kw_only=True)
class FedAdagrad(FedAvg):
    """`FedAvg` whose server has Adagrad."""

    summary: ClassVar[str] = "sparse data, where some elements seldom change (Reddi et al. 2021)"

    server_optimizer: ServerOptimizer = part(SERVER_OPTIMIZERS, "adagrad", fixed=True)


@STRATEGIES.register("fedadam")
@dataclass(frozen=True, kw_only=True)
class FedAdam(FedAvg):
    """`FedAvg` whose server has Adam."""

    summary: ClassVar[str] = "elements of very unlike size, as in language models (Reddi et al. 2021)"

    server_optimizer: ServerOptimizer = part(SERVER_OPTIMIZERS, "adam", fixed=True)


@STRATEGIES.register("fedyogi")
@dataclass(frozen=True, kw_only=True)
class FedYogi(FedAvg):
    """`FedAvg` whose server has Yogi."""

    summary: ClassVar[str] = "the same, where averages change a lot from round to round (Reddi et al. 2021)"

    server_optimizer: ServerOptimizer = part(SERVER_OPTIMIZERS, "yogi", fixed=True)
