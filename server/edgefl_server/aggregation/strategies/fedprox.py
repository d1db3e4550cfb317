"""FedProx: Li et al. 2020, "Federated Optimization in Heterogeneous Networks".

The devices add ``mu (w - received)`` to every gradient (section 3.2); what the server does is FedAvg.
"""

from __future__ import annotations

from dataclasses import dataclass

from edgefl_server.aggregation.strategies.base import Demand
from edgefl_server.aggregation.strategies.fedavg import FedAvg

__all__ = ["FedProx"]


@dataclass(frozen=True)
class FedProx(FedAvg):
    """`FedAvg` of devices that stay near the weights they received.

    Attributes:
        mu: how near; above 0.
    """

    mu: float = 0.01

    @property
    def demand(self) -> Demand:
        """See `Strategy`."""
        return Demand(mu=self.mu)
