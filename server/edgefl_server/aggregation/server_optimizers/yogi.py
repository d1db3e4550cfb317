"""Yogi on the server, the server's side of FedYogi: Reddi et al. 2021, Algorithm 2."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from edgefl_server.aggregation.server_optimizers.adaptive import Adaptive, decay
from edgefl_server.aggregation.server_optimizers.base import SERVER_OPTIMIZERS, rate

__all__ = ["Yogi"]


@SERVER_OPTIMIZERS.register("yogi")
@dataclass(frozen=True)
class Yogi(Adaptive):
    """`Adaptive` with ``v ← v - (1 - β₂) Δ² sign(v - Δ²)``.

    Attributes:
        server_learning_rate: η.
        beta_2: β₂.
    """

    summary: ClassVar[str] = "like adam, where v follows a sudden change more slowly (Reddi et al. 2021)"

    server_learning_rate: float = rate(0.01)
    beta_2: float = decay(0.99, "v")

    def _second(self, v: NDArray[np.float64], squares: NDArray[np.float64]) -> NDArray[np.float64]:
        found: NDArray[np.float64] = v - (1 - self.beta_2) * squares * np.sign(v - squares)
        return found
