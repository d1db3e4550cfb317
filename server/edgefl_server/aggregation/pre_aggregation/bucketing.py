"""Bucketing: Karimireddy et al. 2022, "Byzantine-Robust Learning on Heterogeneous Datasets via Bucketing"."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from edgefl_server.aggregation.hyperparameters import setting
from edgefl_server.aggregation.points import Points
from edgefl_server.aggregation.pre_aggregation.base import PRE_AGGREGATORS, PreAggregator, Prepared

__all__ = ["Bucketing"]


@PRE_AGGREGATORS.register("bucketing")
@dataclass(frozen=True)
class Bucketing(PreAggregator):
    """Algorithm 1: puts in the place of the updates the means of buckets of s, drawn in every fold from the run's seed.

    A bad device spoils its bucket: f of them can be as large a part of n / s buckets as s f of n updates.

    Attributes:
        bucket: s; 1: each stays alone.
    """

    summary: ClassVar[str] = (
        "unlike honest data, few bad devices, and too many updates for distances (Karimireddy et al. 2022)"
    )

    bucket: int = setting(
        2, help="Updates in a bucket of bucketing", lowest=1, highest=1_000_000, table="s, 2 unless given"
    )

    def fewest(self, wanted: int) -> int:
        """See `PreAggregator`."""
        return (wanted - 1) * self.bucket + 1

    def prepare(self, points: Points, slots: Mapping[str, NDArray[np.float32]]) -> Prepared:
        """See `PreAggregator`."""
        count = len(points)
        # Raw output only: what a generator makes of it may differ from one numpy to the next.
        order = np.argsort(np.random.PCG64(points.seed).random_raw(count), kind="stable")
        matrix = np.zeros((-(-count // self.bucket), count))
        for row, start in zip(matrix, range(0, count, self.bucket), strict=True):
            members = order[start : start + self.bucket]
            row[members] = 1 / members.size
        return Prepared(points.mixed(matrix))
