"""How outcomes become new weights: pure state machines and strategies."""

from edgefl_server.aggregation.choosing import settle, strategy_for
from edgefl_server.aggregation.limits import ModelLimits
from edgefl_server.aggregation.merging import Contribution, Merged, merge
from edgefl_server.aggregation.metrics import finalise, sum_states
from edgefl_server.aggregation.progress import FAILED_FOLDS_IN_A_ROW, Next, Progress, after_failure, after_fold
from edgefl_server.aggregation.schedules import (
    Assignment,
    AssignmentState,
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
from edgefl_server.aggregation.tasks import Blob, TaskSource, named_vectors, task_for, task_id_of
from edgefl_server.aggregation.validation import Expectation, decode_outcome, validate

__all__ = [
    "FAILED_FOLDS_IN_A_ROW",
    "STRATEGIES",
    "Accumulator",
    "Assignment",
    "AssignmentState",
    "Blob",
    "Change",
    "Concerned",
    "Contribution",
    "Demand",
    "Expectation",
    "FedAvg",
    "FoldState",
    "Merged",
    "ModelLimits",
    "Next",
    "Progress",
    "RunSettings",
    "Schedule",
    "Standing",
    "Strategy",
    "StrategyState",
    "TaskSource",
    "Update",
    "after_failure",
    "after_fold",
    "decode_outcome",
    "finalise",
    "merge",
    "named_vectors",
    "schedule_for",
    "settle",
    "strategy_for",
    "sum_states",
    "task_for",
    "task_id_of",
    "task_seed",
    "validate",
]
