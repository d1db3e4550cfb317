"""FedProx: Li et al. 2020, "Federated Optimization in Heterogeneous Networks".

The devices add ``mu (w - received)`` to every gradient (section 3.2); what the server does is FedAvg.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from edgefl.algorithms import algorithm
from edgefl_server.aggregation.hyperparameters import SMALLEST, setting
from edgefl_server.aggregation.strategies.base import STRATEGIES, Demand
from edgefl_server.aggregation.strategies.fedavg import FedAvg

__all__ = ["FedProx"]


@STRATEGIES.register("fedprox")
@dataclass(frozen=True, kw_only=True)
class FedProx(FedAvg):
    """`FedAvg` of devices that stay near the weights they received.

    Attributes:
        mu: how near; above 0.
    """

    algorithm: ClassVar[str] = "fedprox"
    summary: ClassVar[str] = (
        "devices with unlike data or unlike amounts of work: each stays near what it received (Li et al. 2020)"
    )

    mu: float = setting(
        help="FedProx's mu",
        lowest=SMALLEST,
        usual=(1e-9, 1e6),
        hint="Start with {mu} 0.01.",
        table="above 0: larger is nearer; try 0.001 to 1",
    )

    @property
    def demand(self) -> Demand:
        """See `Strategy`."""
        return Demand(algorithm(self.algorithm), self.mu)
