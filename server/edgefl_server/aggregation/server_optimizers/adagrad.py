"""Adagrad on the server, the server's side of FedAdagrad: Reddi et al. 2021, Algorithm 2."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from edgefl_server.aggregation.server_optimizers.adaptive import Adaptive, decay
from edgefl_server.aggregation.server_optimizers.base import SERVER_OPTIMIZERS

__all__ = ["Adagrad"]


@SERVER_OPTIMIZERS.register("adagrad")
@dataclass(frozen=True)
class Adagrad(Adaptive):
    """`Adaptive` with ``v ← v + Δ²``, and without momentum unless it is given.

    Attributes:
        beta_1: β₁.
    """

    summary: ClassVar[str] = "steps that shrink where the average was large, for sparse data (Reddi et al. 2021)"

    beta_1: float = decay(0.0, "m")

    def _second(self, v: NDArray[np.float64], squares: NDArray[np.float64]) -> NDArray[np.float64]:
        return v + squares
