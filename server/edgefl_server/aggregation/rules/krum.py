"""Krum and Multi-Krum.

Blanchard et al. 2017, "Machine Learning with Adversaries: Byzantine Tolerant Gradient Descent".
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from edgefl_server.aggregation.hyperparameters import setting
from edgefl_server.aggregation.points import Points
from edgefl_server.aggregation.rules.base import RULES, Rule, bad_devices, bad_in
from edgefl_server.aggregation.updates import FoldError

__all__ = ["Krum", "MultiKrum", "scores"]


def scores(distances: NDArray[np.float64], bad: int) -> NDArray[np.float64]:
    """The scores of section 4: each one's sum of squared distances to its n - f - 2 nearest others, at least to one.

    Args:
        distances: squared, float64 ``[n, n]``.
        bad: f.
    """
    count = len(distances)
    others = np.sort(distances + np.diag(np.full(count, np.inf)), axis=1)
    found: NDArray[np.float64] = others[:, : max(1, min(count - bad - 2, count - 1))].sum(axis=1)
    return found


@RULES.register("krum")
@dataclass(frozen=True)
class Krum(Rule):
    """The one update that is nearest to its n - f - 2 nearest others; of several equal ones the first of the fold.

    Attributes:
        byzantine: f; the paper needs 2f + 3 updates.
    """

    summary: ClassVar[str] = (
        "2f + 3 devices or more with like data: takes one update, and so learns slowly (Blanchard et al. 2017)"
    )

    byzantine: int | None = bad_devices()

    @property
    def fewest(self) -> int:
        """See `Rule`."""
        return 2 * (self.byzantine or 0) + 3

    def combine(
        self, points: Points, slots: Mapping[str, NDArray[np.float32]]
    ) -> tuple[NDArray[np.float64], dict[str, NDArray[np.float32]]]:
        """See `Rule`."""
        bad = bad_in(self.byzantine, len(points), (len(points) - 3) // 2)
        coefficients = np.zeros(len(points))
        coefficients[np.argmin(scores(points.distances, bad))] = 1
        return points.combined(coefficients), {}


@RULES.register("multi-krum")
@dataclass(frozen=True)
class MultiKrum(Rule):
    """The mean of the m updates with the best scores of `Krum`.

    Attributes:
        byzantine: f; the paper needs 2f + 3 updates.
        keep: m, at most n - f.
    """

    summary: ClassVar[str] = "the same, with the mean of the m updates that krum likes best (Blanchard et al. 2017)"

    byzantine: int | None = bad_devices()
    keep: int | None = setting(
        None,
        help="How many updates multi-krum averages",
        shown="n - f",
        lowest=1,
        highest=1_000_000,
        table="m: n - f unless given",
    )

    @property
    def fewest(self) -> int:
        """See `Rule`."""
        return max(2 * (self.byzantine or 0) + 3, (self.keep or 0) + (self.byzantine or 0))

    def combine(
        self, points: Points, slots: Mapping[str, NDArray[np.float32]]
    ) -> tuple[NDArray[np.float64], dict[str, NDArray[np.float32]]]:
        """See `Rule`."""
        bad = bad_in(self.byzantine, len(points), (len(points) - 3) // 2)
        keep = len(points) - bad if self.keep is None else self.keep
        if keep > len(points) - bad:
            raise FoldError(f"{len(points)} updates of which {bad} may be bad are too few to keep {keep} of them")
        best = np.argsort(scores(points.distances, bad), kind="stable")[:keep]
        coefficients = np.zeros(len(points))
        coefficients[best] = 1 / keep
        return points.combined(coefficients), {}
