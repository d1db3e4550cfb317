"""The coordinate-wise median: Yin et al. 2018, "Byzantine-Robust Distributed Learning", Definition 1."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from edgefl_server.aggregation.points import Points
from edgefl_server.aggregation.rules.base import RULES, Rule

__all__ = ["Median"]


@RULES.register("median")
@dataclass(frozen=True)
class Median(Rule):
    """The median of each element; the mean of the two middle ones where their number is even."""

    summary: ClassVar[str] = "fewer than half are bad, and the data are alike (Yin et al. 2018)"

    def combine(
        self, points: Points, slots: Mapping[str, NDArray[np.float32]]
    ) -> tuple[NDArray[np.float64], dict[str, NDArray[np.float32]]]:
        """See `Rule`."""
        found = np.empty(points.size)
        for part, rows in points.blocks():
            middle = (len(rows) - 1) // 2, len(rows) // 2
            rows.partition(middle, axis=0)
            found[part] = 0.5 * (rows[middle[0]] + rows[middle[1]])
        return found, {}
