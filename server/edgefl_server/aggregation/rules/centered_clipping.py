"""Centered clipping: Karimireddy et al. 2021, "Learning from History for Byzantine Robust Optimization", section 4."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from edgefl_server.aggregation.hyperparameters import NORM_HINT, NORMS, SMALLEST, setting
from edgefl_server.aggregation.points import Points
from edgefl_server.aggregation.rules.base import RULES, Rule

__all__ = ["CenteredClipping"]

_CENTER = "center"


@RULES.register("centered-clipping")
@dataclass(frozen=True)
class CenteredClipping(Rule):
    """``v ← v + 1/n Σ (Δₖ - v) min(1, τ / ‖Δₖ - v‖)``, L times, from what the fold before made (the slot ``center``).

    An attacker that knows the history can follow it (arXiv 2208.09894): use it behind another guard.

    Attributes:
        radius: τ.
        iterations: L.
    """

    summary: ClassVar[str] = (
        "few are bad and folds are alike; falls alone to an attacker that knows the history (Karimireddy et al. 2021)"
    )

    radius: float = setting(
        100.0,
        help="The radius of centered-clipping",
        shown="100",
        lowest=SMALLEST,
        usual=NORMS,
        why=NORM_HINT,
        table="τ, 100 unless given",
    )
    iterations: int = setting(
        1, help="How often the rule improves its result", lowest=1, highest=1000, table="L, 1 unless given"
    )

    def init(self, size: int) -> dict[str, NDArray[np.float32]]:
        """See `Rule`; the first fold clips around 0."""
        return {_CENTER: np.zeros(size, np.float32)}

    def combine(
        self, points: Points, slots: Mapping[str, NDArray[np.float32]]
    ) -> tuple[NDArray[np.float64], dict[str, NDArray[np.float32]]]:
        """See `Rule`."""
        whole, count = points.extended(slots[_CENTER]), len(points)
        center = np.zeros(count + 1)
        center[-1] = 1
        for _ in range(self.iterations):
            apart = np.sqrt(whole.to_mixture(center))[:count]
            share = np.minimum(1.0, self.radius / np.maximum(apart, self.radius)) / count
            center *= 1 - share.sum()
            center[:count] += share
        found = whole.combined(center)
        return found, {_CENTER: found.astype(np.float32)}
