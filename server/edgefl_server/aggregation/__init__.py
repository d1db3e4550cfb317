"""Turns outcomes into new weights: pure state machines and strategies."""

from edgefl_server.aggregation.broadcast import broadcast, difference_bytes, without_residual
from edgefl_server.aggregation.choosing import settle
from edgefl_server.aggregation.evaluation import (
    Spread,
    evaluation_settings,
    fold_evaluations,
    is_better,
    is_due,
    is_loss,
    next_evaluation,
    spread_over,
)
from edgefl_server.aggregation.federated_statistics import fold_statistics
from edgefl_server.aggregation.folding import Believed, Folded, fold
from edgefl_server.aggregation.hyperparameters import Setting, SettingError
from edgefl_server.aggregation.limits import ModelLimits
from edgefl_server.aggregation.metrics import finalise, sum_states
from edgefl_server.aggregation.options import run_settings
from edgefl_server.aggregation.progress import FAILED_FOLDS_IN_A_ROW, Next, Progress, after_failure, after_fold
from edgefl_server.aggregation.replaying import LoggedFold, LoggedUpdate, RunLog, replay
from edgefl_server.aggregation.root_device import apart, root_device_of
from edgefl_server.aggregation.schedules import (
    Assignment,
    AssignmentState,
    Change,
    Concerned,
    FoldState,
    Schedule,
    Standing,
    devices_needed,
    ending,
    schedule_for,
)
from edgefl_server.aggregation.seeds import codec_seed, fold_seed, task_seed
from edgefl_server.aggregation.selecting import FIRST_COME, Admission, Candidate, admission_of, key_of
from edgefl_server.aggregation.settings import RunSettings, demand_for, strategy_for
from edgefl_server.aggregation.staleness import Staleness
from edgefl_server.aggregation.strategies import STRATEGIES, Cohort, Demand, Strategy, StrategyState
from edgefl_server.aggregation.tasks import (
    Blob,
    TaskSource,
    codecs_of,
    named_vectors,
    run_of_task,
    task_for,
    task_id_of,
)
from edgefl_server.aggregation.update_codecs import AUTO, choice_text
from edgefl_server.aggregation.updates import Contribution, FoldError, Stored, Update, Updates, in_order, without_basis
from edgefl_server.aggregation.validation import Expectation, decode_outcome, most_bytes, validate

__all__ = [
    "AUTO",
    "FAILED_FOLDS_IN_A_ROW",
    "FIRST_COME",
    "STRATEGIES",
    "Admission",
    "Assignment",
    "AssignmentState",
    "Believed",
    "Blob",
    "Candidate",
    "Change",
    "Cohort",
    "Concerned",
    "Contribution",
    "Demand",
    "Expectation",
    "FoldError",
    "FoldState",
    "Folded",
    "LoggedFold",
    "LoggedUpdate",
    "ModelLimits",
    "Next",
    "Progress",
    "RunLog",
    "RunSettings",
    "Schedule",
    "Setting",
    "SettingError",
    "Spread",
    "Staleness",
    "Standing",
    "Stored",
    "Strategy",
    "StrategyState",
    "TaskSource",
    "Update",
    "Updates",
    "admission_of",
    "after_failure",
    "after_fold",
    "apart",
    "broadcast",
    "choice_text",
    "codec_seed",
    "codecs_of",
    "decode_outcome",
    "demand_for",
    "devices_needed",
    "difference_bytes",
    "ending",
    "evaluation_settings",
    "finalise",
    "fold",
    "fold_evaluations",
    "fold_seed",
    "fold_statistics",
    "in_order",
    "is_better",
    "is_due",
    "is_loss",
    "key_of",
    "most_bytes",
    "named_vectors",
    "next_evaluation",
    "replay",
    "root_device_of",
    "run_of_task",
    "run_settings",
    "schedule_for",
    "settle",
    "spread_over",
    "strategy_for",
    "sum_states",
    "task_for",
    "task_id_of",
    "task_seed",
    "validate",
    "without_basis",
    "without_residual",
]
