"""How outcomes become new weights: pure state machines and strategies."""

from edgefl_server.aggregation.choosing import settle
from edgefl_server.aggregation.folding import Believed, Folded, fold
from edgefl_server.aggregation.hyperparameters import Setting, SettingError
from edgefl_server.aggregation.limits import ModelLimits
from edgefl_server.aggregation.metrics import finalise, sum_states
from edgefl_server.aggregation.rounds import Assignment, AssignmentState, Round, RoundState, rest_seconds
from edgefl_server.aggregation.seeds import task_seed
from edgefl_server.aggregation.settings import RunSettings, run_settings, strategy_for
from edgefl_server.aggregation.strategies import STRATEGIES, Cohort, Demand, Strategy, StrategyState
from edgefl_server.aggregation.updates import Contribution, Update, Updates
from edgefl_server.aggregation.validation import Expectation, decode_outcome, validate

__all__ = [
    "STRATEGIES",
    "Assignment",
    "AssignmentState",
    "Believed",
    "Cohort",
    "Contribution",
    "Demand",
    "Expectation",
    "Folded",
    "ModelLimits",
    "Round",
    "RoundState",
    "RunSettings",
    "Setting",
    "SettingError",
    "Strategy",
    "StrategyState",
    "Update",
    "Updates",
    "decode_outcome",
    "finalise",
    "fold",
    "rest_seconds",
    "run_settings",
    "settle",
    "strategy_for",
    "sum_states",
    "task_seed",
    "validate",
]
