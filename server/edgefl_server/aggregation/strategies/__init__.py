"""Strategies: how the updates of a fold become new weights, one file each, with its paper.

A new one is a file in this folder, or an entry point ``edgefl.strategies`` of another distribution.
"""

from edgefl.plugins import import_modules
from edgefl_server.aggregation.strategies.base import STRATEGIES, Cohort, Demand, Strategy, StrategyState

__all__ = ["STRATEGIES", "Cohort", "Demand", "Strategy", "StrategyState"]

import_modules(__name__)
