"""FLTrust: Cao et al. 2021, "FLTrust: Byzantine-robust Federated Learning via Trust Bootstrapping", Algorithm 2."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from edgefl_server.aggregation.points import Points
from edgefl_server.aggregation.rules.base import Rule
from edgefl_server.aggregation.updates import FoldError

__all__ = ["FLTrust"]


@dataclass(frozen=True, eq=False)
class FLTrust(Rule):
    """``Σ TSₖ ‖g₀‖/‖Δₖ‖ Δₖ / Σ TSₖ`` with ``TSₖ = max(0, cos(Δₖ, g₀))``.

    It has no name for `--rule`: the root update of every fold comes from whoever calls it.

    Attributes:
        root: g₀, float32 ``[size]``: what training on the operator's own clean rows makes of the same weights.
    """

    summary: ClassVar[str] = "any number of bad devices, where the operator has clean rows (Cao et al. 2021)"

    root: NDArray[np.float32]

    def combine(
        self, points: Points, slots: Mapping[str, NDArray[np.float32]]
    ) -> tuple[NDArray[np.float64], dict[str, NDArray[np.float32]]]:
        """See `Rule`."""
        whole = points.extended(self.root)
        squares, distances = whole.squared_norms, whole.distances
        norms, own = np.sqrt(squares[:-1]), float(np.sqrt(squares[-1]))
        products = 0.5 * (squares[:-1] + squares[-1] - distances[-1, :-1])
        both = norms * own
        trust = np.divide(products, both, out=np.zeros_like(both), where=both > 0)
        trust = np.maximum(trust, 0.0)
        if not trust.sum() > 0:
            raise FoldError("no update points where the root update does: there is nobody to trust")
        factors = np.divide(trust * own, norms, out=np.zeros_like(norms), where=norms > 0)
        return whole.combined(np.append(factors / trust.sum(), 0.0)), {}
