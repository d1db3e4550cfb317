"""A bound on the norm of every update: Sun et al. 2019, "Can You Really Backdoor Federated Learning?", section 4."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from edgefl_server.aggregation.hyperparameters import NORM_HINT, NORMS, SMALLEST, setting
from edgefl_server.aggregation.points import Points
from edgefl_server.aggregation.pre_aggregation.base import PRE_AGGREGATORS, PreAggregator, Prepared

__all__ = ["NormBound", "shortened"]


def shortened(points: Points, bound: float) -> tuple[Points, int]:
    """Points of which none is longer than a bound, an L2 norm, and how many were."""
    norms = np.sqrt(points.squared_norms)
    longer = norms > bound
    factors = np.divide(bound, norms, out=np.ones_like(norms), where=longer)
    return points.scaled(factors), int(np.count_nonzero(longer))


@PRE_AGGREGATORS.register("norm-bound")
@dataclass(frozen=True)
class NormBound(PreAggregator):
    """Scales every update that is longer than M down to M. What it counts for stays.

    Attributes:
        bound: M, an L2 norm; None: the median norm of the fold, the upper of two middle ones, which is an honest one's
            or below it while more than half are honest.
    """

    summary: ClassVar[str] = "no update is longer than a bound (Sun et al. 2019)"

    bound: float | None = setting(
        None,
        help="The longest update that norm-bound lets through",
        shown="the fold's median norm",
        lowest=SMALLEST,
        usual=NORMS,
        why=NORM_HINT,
        table="M: the median norm of the fold unless given",
    )

    def prepare(self, points: Points, slots: Mapping[str, NDArray[np.float32]]) -> Prepared:
        """See `PreAggregator`."""
        norms = np.sort(np.sqrt(points.squared_norms))
        bound = float(norms[len(norms) // 2]) if self.bound is None else self.bound
        bounded, count = shortened(points, bound)
        return Prepared(bounded, figures={"norm_bound": bound, "updates_shortened": float(count)})
