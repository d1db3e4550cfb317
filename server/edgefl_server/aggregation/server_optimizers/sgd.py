"""Plain SGD on the server: the weights go along the average, times a constant rate."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgefl_server.aggregation.averaging import Average

__all__ = ["Sgd"]


@dataclass(frozen=True)
class Sgd:
    """``w ← w + rate · average``; see `ServerOptimizer`.

    Attributes:
        rate: None: just the average, which costs one rounding less than a rate of 1.
    """

    rate: float | None = None

    def init(self, size: int) -> dict[str, NDArray[np.float32]]:
        """It remembers nothing."""
        return {}

    def step(
        self, average: Average, slots: Mapping[str, NDArray[np.float32]]
    ) -> tuple[NDArray[np.float64], dict[str, NDArray[np.float32]]]:
        """See `ServerOptimizer`."""
        return average.mean() if self.rate is None else average.scaled(self.rate), {}
