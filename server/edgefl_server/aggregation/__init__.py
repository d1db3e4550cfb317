"""How outcomes become new weights: pure state machines and strategies."""

from edgefl_server.aggregation.choosing import settle, strategy_for
from edgefl_server.aggregation.limits import ModelLimits
from edgefl_server.aggregation.merging import Contribution, Merged, merge
from edgefl_server.aggregation.metrics import finalise, sum_states
from edgefl_server.aggregation.rounds import Assignment, AssignmentState, Round, RoundState, rest_seconds
from edgefl_server.aggregation.seeds import codec_seed, task_seed
from edgefl_server.aggregation.settings import STRATEGIES, RunSettings
from edgefl_server.aggregation.strategies import Accumulator, Demand, FedAvg, Strategy, StrategyState, Update
from edgefl_server.aggregation.validation import Expectation, decode_outcome, validate

__all__ = [
    "STRATEGIES",
    "Accumulator",
    "Assignment",
    "AssignmentState",
    "Contribution",
    "Demand",
    "Expectation",
    "FedAvg",
    "Merged",
    "ModelLimits",
    "Round",
    "RoundState",
    "RunSettings",
    "Strategy",
    "StrategyState",
    "Update",
    "codec_seed",
    "decode_outcome",
    "finalise",
    "merge",
    "rest_seconds",
    "settle",
    "strategy_for",
    "sum_states",
    "task_seed",
    "validate",
]
