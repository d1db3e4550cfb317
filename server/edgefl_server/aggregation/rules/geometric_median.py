"""The geometric median by the smoothed Weiszfeld algorithm.

Pillutla et al. 2022, "Robust Aggregation for Federated Learning", Algorithm 2.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from edgefl_server.aggregation.hyperparameters import SMALLEST, setting
from edgefl_server.aggregation.points import Points
from edgefl_server.aggregation.rules.base import RULES, Rule

__all__ = ["GeometricMedian"]


@RULES.register("geometric-median")
@dataclass(frozen=True)
class GeometricMedian(Rule):
    """``z ← Σ βₖ Δₖ / Σ βₖ`` with ``βₖ = 1 / max(ν, ‖z - Δₖ‖)``, T times, from 0. Each device counts the same.

    Attributes:
        smoothing: ν.
        iterations: T.
    """

    summary: ClassVar[str] = "fewer than half are bad; it turns with the coordinates (Pillutla et al. 2022)"

    smoothing: float = setting(
        0.1,
        help="The least distance of geometric-median",
        lowest=SMALLEST,
        usual=(1e-12, 1e6),
        table="ν, 0.1 unless given",
    )
    iterations: int = setting(
        3, help="How often the rule improves its result", lowest=1, highest=1000, table="T, 3 unless given"
    )

    def combine(
        self, points: Points, slots: Mapping[str, NDArray[np.float32]]
    ) -> tuple[NDArray[np.float64], dict[str, NDArray[np.float32]]]:
        """See `Rule`."""
        squares = points.squared_norms
        for _ in range(self.iterations):
            beta = 1 / np.maximum(self.smoothing, np.sqrt(squares))
            weights = beta / beta.sum()
            squares = points.to_mixture(weights)
        return points.combined(weights), {}
