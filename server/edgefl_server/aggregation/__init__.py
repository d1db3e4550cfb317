"""How outcomes become new weights: pure state machines and strategies."""

from edgefl_server.aggregation.choosing import settle, strategy_for
from edgefl_server.aggregation.limits import ModelLimits
from edgefl_server.aggregation.merging import Contribution, Merged, merge
from edgefl_server.aggregation.metrics import finalise, sum_states
from edgefl_server.aggregation.rounds import Assignment, AssignmentState, Round, RoundState, rest_seconds
from edgefl_server.aggregation.schedules import (
    Change,
    Concerned,
    FoldState,
    Schedule,
    Standing,
    schedule_for,
)
from edgefl_server.aggregation.seeds import task_seed
from edgefl_server.aggregation.settings import STRATEGIES, RunSettings
from edgefl_server.aggregation.strategies import Accumulator, Demand, FedAvg, Strategy, StrategyState, Update
from edgefl_server.aggregation.validation import Expectation, decode_outcome, validate

__all__ = [
    "STRATEGIES",
    "Accumulator",
    "Assignment",
    "AssignmentState",
    "Change",
    "Concerned",
    "Contribution",
    "Demand",
    "Expectation",
    "FedAvg",
    "FoldState",
    "Merged",
    "ModelLimits",
    "Round",
    "RoundState",
    "RunSettings",
    "Schedule",
    "Standing",
    "Strategy",
    "StrategyState",
    "Update",
    "decode_outcome",
    "finalise",
    "merge",
    "rest_seconds",
    "schedule_for",
    "settle",
    "strategy_for",
    "sum_states",
    "task_seed",
    "validate",
]
