"""Strategies: how the outcomes of a round become new weights, one module each, with its paper."""

from edgefl_server.aggregation.strategies.base import Accumulator, Demand, Strategy, StrategyState, Update
from edgefl_server.aggregation.strategies.fedavg import FedAvg
from edgefl_server.aggregation.strategies.feddyn import FedDyn
from edgefl_server.aggregation.strategies.fedprox import FedProx
from edgefl_server.aggregation.strategies.fedsgd import FedSGD
from edgefl_server.aggregation.strategies.scaffold import Scaffold

__all__ = [
    "Accumulator",
    "Demand",
    "FedAvg",
    "FedDyn",
    "FedProx",
    "FedSGD",
    "Scaffold",
    "Strategy",
    "StrategyState",
    "Update",
]
