"""Mixing of nearest neighbours (NNM).

Allouah et al. 2023, "Fixing by Mixing: A Recipe for Optimal Byzantine ML under Heterogeneity", Algorithm 2.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from edgefl_server.aggregation.points import Points
from edgefl_server.aggregation.pre_aggregation.base import PRE_AGGREGATORS, PreAggregator, Prepared
from edgefl_server.aggregation.rules.base import bad_devices, bad_in

__all__ = ["NearestNeighbourMixing"]


@PRE_AGGREGATORS.register("nnm")
@dataclass(frozen=True)
class NearestNeighbourMixing(PreAggregator):
    """Puts in the place of every update the mean of its n - f nearest, itself among them; of equal ones the first.

    Attributes:
        byzantine: f, fewer than half of the updates.
    """

    summary: ClassVar[str] = (
        "each update becomes the mean of its n - f nearest, so that unlike honest data no longer hide bad devices "
        "(Allouah et al. 2023)"
    )

    byzantine: int | None = bad_devices()

    def fewest(self, wanted: int) -> int:
        """See `PreAggregator`."""
        return max(wanted, 2 * (self.byzantine or 0) + 1)

    def prepare(self, points: Points, slots: Mapping[str, NDArray[np.float32]]) -> Prepared:
        """See `PreAggregator`."""
        count = len(points)
        keep = count - bad_in(self.byzantine, count, (count - 1) // 2)
        nearest = np.argsort(points.distances, axis=1, kind="stable")[:, :keep]
        matrix = np.zeros((count, count))
        np.put_along_axis(matrix, nearest, 1 / keep, axis=1)
        return Prepared(points.mixed(matrix))
