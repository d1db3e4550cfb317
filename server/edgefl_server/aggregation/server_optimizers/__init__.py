"""Server optimizers: how far the weights go along the average of the updates, one file each.

Reddi et al. 2021, "Adaptive Federated Optimization", Algorithm 2: the average of the deltas is the negative of a
gradient. A strategy is composed of one; what it remembers are slots of the strategy's state.
"""

from edgefl_server.aggregation.server_optimizers.base import ServerOptimizer
from edgefl_server.aggregation.server_optimizers.sgd import Sgd

__all__ = ["ServerOptimizer", "Sgd"]
