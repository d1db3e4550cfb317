"""The coordinate-wise trimmed mean: Yin et al. 2018, "Byzantine-Robust Distributed Learning", Definition 2."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from edgefl_server.aggregation.points import Points
from edgefl_server.aggregation.rules.base import RULES, Rule, bad_devices, bad_in, trimmed

__all__ = ["TrimmedMean"]


@RULES.register("trimmed-mean")
@dataclass(frozen=True)
class TrimmedMean(Rule):
    """The mean of each element without its f smallest and f largest values; β n of the paper is f.

    Attributes:
        byzantine: f, fewer than half of the updates.
    """

    summary: ClassVar[str] = "fewer than half are bad (Yin et al. 2018)"

    byzantine: int | None = bad_devices()

    @property
    def fewest(self) -> int:
        """See `Rule`."""
        return 2 * (self.byzantine or 0) + 1

    def combine(
        self, points: Points, slots: Mapping[str, NDArray[np.float32]]
    ) -> tuple[NDArray[np.float64], dict[str, NDArray[np.float32]]]:
        """See `Rule`."""
        return trimmed(points, bad_in(self.byzantine, len(points), (len(points) - 1) // 2)), {}
