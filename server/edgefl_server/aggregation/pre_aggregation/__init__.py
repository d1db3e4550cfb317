"""Pre-aggregators: they bound and mix the updates of a fold before a rule, one file each; several go in a row."""

from edgefl_server.aggregation.pre_aggregation.adaptive_clipping import AdaptiveClipping
from edgefl_server.aggregation.pre_aggregation.adaptive_zeroing import AdaptiveZeroing
from edgefl_server.aggregation.pre_aggregation.base import PRE_AGGREGATORS, PreAggregator
from edgefl_server.aggregation.pre_aggregation.bucketing import Bucketing
from edgefl_server.aggregation.pre_aggregation.nearest_neighbours import NearestNeighbourMixing
from edgefl_server.aggregation.pre_aggregation.norm_bound import NormBound

__all__ = [
    "PRE_AGGREGATORS",
    "AdaptiveClipping",
    "AdaptiveZeroing",
    "Bucketing",
    "NearestNeighbourMixing",
    "NormBound",
    "PreAggregator",
]
