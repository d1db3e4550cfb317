"""Server optimizers: how far the weights go along the average of the updates, one file each.

Reddi et al. 2021, "Adaptive Federated Optimization", Algorithms 1 and 2: the average of the deltas is the negative of a
gradient. A strategy is composed of one; what it remembers are slots of the strategy's state.
"""

from edgefl_server.aggregation.server_optimizers.adagrad import Adagrad
from edgefl_server.aggregation.server_optimizers.adam import Adam
from edgefl_server.aggregation.server_optimizers.base import SERVER_OPTIMIZERS, ServerOptimizer
from edgefl_server.aggregation.server_optimizers.momentum import Momentum
from edgefl_server.aggregation.server_optimizers.sgd import Sgd
from edgefl_server.aggregation.server_optimizers.yogi import Yogi

__all__ = ["SERVER_OPTIMIZERS", "Adagrad", "Adam", "Momentum", "ServerOptimizer", "Sgd", "Yogi"]
