"""Rules: what is made of the updates of a fold, one file each; most hold against devices that send what they like."""

from edgefl_server.aggregation.rules.base import RULES, Rule
from edgefl_server.aggregation.rules.bulyan import Bulyan
from edgefl_server.aggregation.rules.centered_clipping import CenteredClipping
from edgefl_server.aggregation.rules.fltrust import FLTrust
from edgefl_server.aggregation.rules.geometric_median import GeometricMedian
from edgefl_server.aggregation.rules.krum import Krum, MultiKrum
from edgefl_server.aggregation.rules.mean import Mean
from edgefl_server.aggregation.rules.median import Median
from edgefl_server.aggregation.rules.trimmed_mean import TrimmedMean

__all__ = [
    "RULES",
    "Bulyan",
    "CenteredClipping",
    "FLTrust",
    "GeometricMedian",
    "Krum",
    "Mean",
    "Median",
    "MultiKrum",
    "Rule",
    "TrimmedMean",
]
