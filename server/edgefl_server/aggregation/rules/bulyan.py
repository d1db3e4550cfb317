"""Bulyan: El Mhamdi et al. 2018, "The Hidden Vulnerability of Distributed Learning in Byzantium"."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from edgefl_server.aggregation.points import Points
from edgefl_server.aggregation.rules.base import RULES, Rule, bad_devices, bad_in
from edgefl_server.aggregation.rules.krum import scores

__all__ = ["Bulyan"]


@RULES.register("bulyan")
@dataclass(frozen=True)
class Bulyan(Rule):
    """Krum chooses θ = n - 2f updates, one after the other, of which each element is averaged near its median.

    Near are the θ - 2f values that are nearest (section 4).

    Attributes:
        byzantine: f; the paper needs 4f + 3 updates.
    """

    summary: ClassVar[str] = "4f + 3 devices or more, many parameters (El Mhamdi et al. 2018)"

    byzantine: int | None = bad_devices()

    @property
    def fewest(self) -> int:
        """See `Rule`."""
        return 4 * (self.byzantine or 0) + 3

    def combine(
        self, points: Points, slots: Mapping[str, NDArray[np.float32]]
    ) -> tuple[NDArray[np.float64], dict[str, NDArray[np.float32]]]:
        """See `Rule`."""
        bad = bad_in(self.byzantine, len(points), (len(points) - 3) // 4)
        chosen = _by_krum(points.distances, bad, len(points) - 2 * bad)
        keep = len(chosen) - 2 * bad
        found = np.empty(points.size)
        for part, rows in points.chosen(chosen).blocks():
            middle = (len(rows) - 1) // 2, len(rows) // 2
            rows.sort(axis=0)
            median = 0.5 * (rows[middle[0]] + rows[middle[1]])
            # The nearest of sorted values lie side by side: the window that is least wide around the median.
            lowest = rows[: len(rows) - keep + 1]
            reach = np.maximum(median - lowest, rows[keep - 1 :] - median)
            first = reach.argmin(axis=0)
            window = np.take_along_axis(rows, first + np.arange(keep)[:, None], axis=0)
            found[part] = np.add.reduce(window, axis=0) / keep
        return found, {}


def _by_krum(distances: NDArray[np.float64], bad: int, count: int) -> list[int]:
    """Chooses by Krum, each among those that are left, in the order of the fold."""
    left = list(range(len(distances)))
    chosen = []
    for _ in range(count):
        best = int(np.argmin(scores(distances[np.ix_(left, left)], bad))) if len(left) > 1 else 0
        chosen.append(left.pop(best))
    return sorted(chosen)
