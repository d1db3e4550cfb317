"""SGD with momentum on the server, the server's side of FedAvgM.

Hsu et al. 2019, "Measuring the Effects of Non-Identical Data Distribution for Federated Visual Classification",
section 4.3.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from edgefl_server.aggregation.averaging import Average, pieces
from edgefl_server.aggregation.hyperparameters import check_ranges, setting
from edgefl_server.aggregation.server_optimizers.base import SERVER_OPTIMIZERS, rate

__all__ = ["Momentum"]

_V = "server_momentum"


@SERVER_OPTIMIZERS.register("momentum")
@dataclass(frozen=True)
class Momentum:
    """``v ← β v + average``, ``w ← w + η v``; see `ServerOptimizer`. The slot ``server_momentum`` is v, at first 0.

    Attributes:
        server_learning_rate: η.
        momentum: β; the paper tries 0 to 0.997, and 0.9 was good on all of its data.
    """

    summary: ClassVar[str] = "with momentum (Hsu et al. 2019)"

    server_learning_rate: float = rate(1.0)
    momentum: float = setting(
        0.9, help="The server's momentum", lowest=0, highest=1, usual=(0, 0.9999), table="β, 0.9 unless given"
    )

    def __post_init__(self) -> None:
        check_ranges(self)

    def init(self, size: int) -> dict[str, NDArray[np.float32]]:
        """See `ServerOptimizer`."""
        return {_V: np.zeros(size, np.float32)}

    def step(
        self, average: Average, slots: Mapping[str, NDArray[np.float32]]
    ) -> tuple[NDArray[np.float64], dict[str, NDArray[np.float32]]]:
        """See `ServerOptimizer`."""
        change, before = average.used_up(), slots[_V]
        after = np.empty_like(before)
        for part in pieces(change.size):
            v = self.momentum * before[part].astype(np.float64) + change[part]
            after[part] = v
            change[part] = self.server_learning_rate * v
        return change, {_V: after}
