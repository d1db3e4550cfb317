"""A rule, a pre-aggregator and a server optimizer, as somebody outside of edgefl would write them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from edgefl_server.aggregation.hyperparameters import setting
from edgefl_server.aggregation.pre_aggregation import PreAggregator
from edgefl_server.aggregation.pre_aggregation.base import Prepared
from edgefl_server.aggregation.rules import Rule


@dataclass(frozen=True)
class Shortest(Rule):
    """The mean of the updates that are shortest."""

    summary: ClassVar[str] = "fleets in which loud devices lie"

    quiet: int = setting(1, help="How many updates shortest averages", lowest=1, highest=99)

    @property
    def fewest(self) -> int:
        return self.quiet

    def combine(self, points, slots):
        coefficients = np.zeros(len(points))
        coefficients[np.argsort(points.squared_norms, kind="stable")[: self.quiet]] = 1 / self.quiet
        return points.combined(coefficients), {}


@dataclass(frozen=True)
class Halved(PreAggregator):
    """Half of each update."""

    def prepare(self, points, slots):
        return Prepared(points.scaled(np.full(len(points), 0.5)), figures={"halved": float(len(points))})


@dataclass(frozen=True)
class Ahead:
    """Twice as far as the average."""

    def init(self, size):
        return {}

    def step(self, average, slots):
        return 2.0 * average.mean(), {}
