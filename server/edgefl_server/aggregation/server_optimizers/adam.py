"""Adam on the server, the server's side of FedAdam: Reddi et al. 2021, Algorithm 2."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from edgefl_server.aggregation.server_optimizers.adaptive import Adaptive, decay
from edgefl_server.aggregation.server_optimizers.base import SERVER_OPTIMIZERS

__all__ = ["Adam"]


@SERVER_OPTIMIZERS.register("adam")
@dataclass(frozen=True)
class Adam(Adaptive):
    """`Adaptive` with ``v ← β₂ v + (1 - β₂) Δ²``.

    Attributes:
        beta_2: β₂.
    """

    summary: ClassVar[str] = "steps of like length in every element (Reddi et al. 2021)"

    beta_2: float = decay(0.99, "v")

    def _second(self, v: NDArray[np.float64], squares: NDArray[np.float64]) -> NDArray[np.float64]:
        return self.beta_2 * v + (1 - self.beta_2) * squares
