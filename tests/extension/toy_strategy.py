"""The coordinate-wise median (Yin et al. 2018), as somebody outside of edgefl would write it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from edgefl_server.aggregation import Cohort, Strategy, StrategyState, Updates
from edgefl_server.aggregation.averaging import average, by_examples
from edgefl_server.aggregation.hyperparameters import setting


@dataclass(frozen=True)
class Median(Strategy):
    """``w ← w + stride · median(Δ)``, element by element."""

    summary: ClassVar[str] = "fleets in which some devices lie"

    stride: int = setting(1, help="In multiples of the median.", lowest=1, highest=9)

    def apply(self, state: StrategyState, updates: Updates, cohort: Cohort) -> tuple[StrategyState, dict[str, float]]:
        change = np.zeros(state.weight_size)
        for part, deltas in updates.blocks("delta"):
            change[part] = self.stride * np.median(deltas, axis=0)
        after, figures = state.moved(change, average(updates, {"statistics": by_examples})["statistics"].mean())
        return after, {**figures, "medians": float(change.size)}
