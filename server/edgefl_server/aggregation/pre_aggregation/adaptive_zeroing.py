"""Leaving out updates with an element far above a quantile, as TensorFlow Federated's robust aggregator does.

The quantile is followed as in Andrew et al. 2021, "Differentially Private Learning with Adaptive Clipping".
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from edgefl_server.aggregation.points import Points
from edgefl_server.aggregation.pre_aggregation.adaptive_clipping import followed
from edgefl_server.aggregation.pre_aggregation.base import PRE_AGGREGATORS, PreAggregator, Prepared

__all__ = ["AdaptiveZeroing"]

_Q = "zeroing_norm"
_INITIAL, _QUANTILE, _RATE = 10.0, 0.98, float(np.log(10.0))
_TIMES, _PLUS = 2.0, 1.0
"""An update is left out beyond 2 Q + 1."""


@PRE_AGGREGATORS.register("adaptive-zeroing")
@dataclass(frozen=True)
class AdaptiveZeroing(PreAggregator):
    """Makes 0 of an update with an element beyond 2 Q + 1, where Q follows the 98 % quantile of the largest elements.

    For what is broken rather than hostile. Q is 10 at first (the slot ``zeroing_norm``) and moves by up to ten times a
    fold; all constants are TensorFlow Federated's. An update of 0 counts for as much as it did.
    """

    summary: ClassVar[str] = "updates with absurdly large elements count as 0 (constants of TensorFlow Federated)"

    def init(self) -> dict[str, NDArray[np.float32]]:
        """See `PreAggregator`."""
        return {_Q: np.full(1, _INITIAL, np.float32)}

    def prepare(self, points: Points, slots: Mapping[str, NDArray[np.float32]]) -> Prepared:
        """See `PreAggregator`."""
        largest, estimate = points.largest(), float(slots[_Q][0])
        kept = largest <= _TIMES * estimate + _PLUS
        after = followed(estimate, largest, _QUANTILE, _RATE)
        figures = {"zeroing_norm": estimate, "updates_zeroed": float(np.count_nonzero(~kept))}
        return Prepared(points.scaled(kept.astype(np.float64)), {_Q: np.full(1, after, np.float32)}, figures)
