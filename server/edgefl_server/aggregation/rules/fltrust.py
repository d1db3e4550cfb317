"""FLTrust: Cao et al. 2021, "FLTrust: Byzantine-robust Federated Learning via Trust Bootstrapping", Algorithm 2."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from edgefl_server.aggregation.hyperparameters import SettingError, setting
from edgefl_server.aggregation.points import Points
from edgefl_server.aggregation.rules.base import RULES, Rule
from edgefl_server.aggregation.updates import FoldError

__all__ = ["FLTrust"]


@RULES.register("fltrust")
@dataclass(frozen=True)
class FLTrust(Rule):
    """``Σ TSₖ ‖g₀‖/‖Δₖ‖ Δₖ / Σ TSₖ`` with ``TSₖ = max(0, cos(Δₖ, g₀))``.

    Attributes:
        root_device: the device that holds the root set.
        root: g₀, float32 ``[size]``: what training on the root set makes of the same weights; None: before a fold.
    """

    summary: ClassVar[str] = "any number of bad devices, where you have some clean rows (Cao et al. 2021)"

    root_device: str = setting(
        "",
        help="FLTrust: id of your own device with clean rows",
        shown="required",
        table="the id of [your own device](operating.md#a-root-device) with the clean rows",
    )
    root: NDArray[np.float32] | None = field(default=None, compare=False, repr=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.root_device:
            raise SettingError(
                "{rule} fltrust expects {root_device}: it judges updates by the one that clean rows of yours make."
            )

    def rooted(self, root: NDArray[np.float32]) -> FLTrust:
        """See `Rule`."""
        return replace(self, root=root)

    def combine(
        self, points: Points, slots: Mapping[str, NDArray[np.float32]]
    ) -> tuple[NDArray[np.float64], dict[str, NDArray[np.float32]]]:
        """See `Rule`."""
        if self.root is None:
            raise FoldError("there is no update of the root device")
        whole = points.extended(self.root)
        squares, products = np.zeros(len(whole)), np.zeros(len(points))
        # Products by themselves: differences of squares would lose the digits of updates far longer than g₀.
        for _, rows in whole.blocks():
            squares += np.einsum("ij,ij->i", rows, rows)
            products += np.einsum("ij,ij->i", rows[:-1], np.broadcast_to(rows[-1], rows[:-1].shape))
        norms, own = np.sqrt(squares[:-1]), float(np.sqrt(squares[-1]))
        if not own > 0:
            raise FoldError("the update of the root device is all zeros: nobody can be judged by it")
        both = norms * own
        trust = np.divide(products, both, out=np.zeros_like(both), where=both > 0)
        trust = np.maximum(trust, 0.0)
        if not trust.sum() > 0:
            raise FoldError("no update points where that of the root device does: there is nobody to trust")
        factors = np.divide(trust * own, norms, out=np.zeros_like(norms), where=norms > 0)
        return points.combined(factors / trust.sum()), {}
