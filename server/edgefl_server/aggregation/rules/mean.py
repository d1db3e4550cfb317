"""The weighted mean, as in FedAvg: the best rule while all devices are honest, and any single one can spoil it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from edgefl_server.aggregation.points import Points
from edgefl_server.aggregation.rules.base import RULES, Rule

__all__ = ["Mean"]


@RULES.register("mean")
@dataclass(frozen=True)
class Mean(Rule):
    """``Σ nₖ Δₖ / Σ nₖ``; a single device can make anything of it."""

    summary: ClassVar[str] = "honest devices"
    robust: ClassVar[bool] = False

    def combine(
        self, points: Points, slots: Mapping[str, NDArray[np.float32]]
    ) -> tuple[NDArray[np.float64], dict[str, NDArray[np.float32]]]:
        """See `Rule`."""
        return points.combined(points.weights / points.weights.sum()), {}

    def combine_statistics(self, points: Points) -> NDArray[np.float64]:
        """See `Rule`; the weighted mean of these too."""
        return points.combined(points.weights / points.weights.sum())
