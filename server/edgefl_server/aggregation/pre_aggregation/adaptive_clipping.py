"""Clipping to a quantile of the norms: Andrew et al. 2021, "Differentially Private Learning with Adaptive Clipping"."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from edgefl_server.aggregation.hyperparameters import NORM_HINT, NORMS, SMALLEST, setting
from edgefl_server.aggregation.points import Points
from edgefl_server.aggregation.pre_aggregation.base import PRE_AGGREGATORS, PreAggregator, Prepared
from edgefl_server.aggregation.pre_aggregation.norm_bound import shortened

__all__ = ["AdaptiveClipping", "followed"]

_C = "clipping_norm"


def followed(estimate: float, sizes: NDArray[np.float64], quantile: float, rate: float) -> float:
    """The estimate of a quantile after a fold: ``C ← C exp(-η (b - γ))``, b being the part of the sizes up to C."""
    below = np.count_nonzero(sizes <= estimate) / sizes.size
    return float(estimate * np.exp(-rate * (below - quantile)))


@PRE_AGGREGATORS.register("adaptive-clipping")
@dataclass(frozen=True)
class AdaptiveClipping(PreAggregator):
    """Algorithm 1 without noise: clips to C, the slot ``clipping_norm``, which then follows the norms' γ-quantile.

    The defaults are the paper's, which TensorFlow Federated and Flower have too.

    Attributes:
        initial_norm: C of the first fold, an L2 norm.
        quantile: γ.
        quantile_rate: η.
    """

    summary: ClassVar[str] = "no update is longer than a quantile of all folds' norms (Andrew et al. 2021)"

    initial_norm: float = setting(
        0.1,
        help="The first norm of adaptive-clipping",
        lowest=SMALLEST,
        usual=NORMS,
        why=NORM_HINT,
        table="C of the first fold, 0.1 unless given",
    )
    quantile: float = setting(
        0.5,
        help="The quantile that adaptive-clipping follows",
        lowest=0,
        highest=1,
        usual=(0.01, 0.99),
        why="At 0 updates become ever shorter.",
        table="γ, 0.5 unless given",
    )
    quantile_rate: float = setting(
        0.2,
        help="How fast adaptive-clipping follows it",
        lowest=SMALLEST,
        highest=100,
        usual=(1e-6, 100),
        table="η, 0.2 unless given",
    )

    def init(self) -> dict[str, NDArray[np.float32]]:
        """See `PreAggregator`."""
        return {_C: np.full(1, self.initial_norm, np.float32)}

    def prepare(self, points: Points, slots: Mapping[str, NDArray[np.float32]]) -> Prepared:
        """See `PreAggregator`."""
        norm = float(slots[_C][0])
        after = followed(norm, np.sqrt(points.squared_norms), self.quantile, self.quantile_rate)
        clipped, count = shortened(points, norm)
        figures = {"clipping_norm": norm, "updates_clipped": float(count)}
        return Prepared(clipped, {_C: np.full(1, after, np.float32)}, figures)
