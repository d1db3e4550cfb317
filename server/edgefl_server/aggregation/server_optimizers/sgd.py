"""Plain SGD on the server: the weights go along the average, times a constant rate."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from edgefl_server.aggregation.averaging import Average
from edgefl_server.aggregation.hyperparameters import check_ranges
from edgefl_server.aggregation.server_optimizers.base import SERVER_OPTIMIZERS, rate

__all__ = ["Sgd"]


@SERVER_OPTIMIZERS.register("sgd")
@dataclass(frozen=True)
class Sgd:
    """``w ← w + η · average``; see `ServerOptimizer`.

    Attributes:
        server_learning_rate: η; None: just the average, which costs one rounding less than a rate of 1.
    """

    summary: ClassVar[str] = "along the average"

    server_learning_rate: float | None = rate(None, "1")

    def __post_init__(self) -> None:
        check_ranges(self)

    def init(self, size: int) -> dict[str, NDArray[np.float32]]:
        """It remembers nothing."""
        return {}

    def step(
        self, average: Average, slots: Mapping[str, NDArray[np.float32]]
    ) -> tuple[NDArray[np.float64], dict[str, NDArray[np.float32]]]:
        """See `ServerOptimizer`."""
        return average.used_up(self.server_learning_rate), {}
