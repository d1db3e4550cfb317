"""How outcomes become new weights: pure state machines and strategies."""

from edgefl_server.aggregation.choosing import settle, strategy_for
from edgefl_server.aggregation.metrics import finalise, known_states, sum_states
from edgefl_server.aggregation.rounds import Assignment, AssignmentState, Round, RoundState
from edgefl_server.aggregation.seeds import task_seed
from edgefl_server.aggregation.settings import STRATEGIES, RunSettings
from edgefl_server.aggregation.strategies import Accumulator, Demand, FedAvg, Strategy, StrategyState, Update
from edgefl_server.aggregation.validation import Expectation, decode_outcome, validate

__all__ = [
    "STRATEGIES",
    "Accumulator",
    "Assignment",
    "AssignmentState",
    "Demand",
    "Expectation",
    "FedAvg",
    "Round",
    "RoundState",
    "RunSettings",
    "Strategy",
    "StrategyState",
    "Update",
    "decode_outcome",
    "finalise",
    "known_states",
    "settle",
    "strategy_for",
    "sum_states",
    "task_seed",
    "validate",
]
