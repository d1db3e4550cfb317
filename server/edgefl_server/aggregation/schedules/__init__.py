"""Schedules: who gets which task when, and what is folded together; one module each. One comes here to add another."""

from collections.abc import Callable

from edgefl.errors import InvalidSettingError
from edgefl.plugins import Registry
from edgefl_server.aggregation.hyperparameters import SettingError
from edgefl_server.aggregation.schedules.base import (
    Assignment,
    AssignmentState,
    Change,
    Concerned,
    FoldState,
    Schedule,
    Standing,
)
from edgefl_server.aggregation.schedules.synchronous import Synchronous
from edgefl_server.aggregation.settings import RunSettings

__all__ = [
    "SCHEDULES",
    "Assignment",
    "AssignmentState",
    "Change",
    "Concerned",
    "FoldState",
    "Schedule",
    "Standing",
    "Synchronous",
    "schedule_for",
]


def _check(name: str, entry: object) -> None:
    if not callable(entry):
        raise InvalidSettingError("It makes no schedule from the settings of a run.")


SCHEDULES: Registry[Callable[[RunSettings], Schedule]] = Registry("schedule", "edgefl.schedules", check=_check)
SCHEDULES.register("synchronous")(Synchronous)


def schedule_for(settings: RunSettings) -> Schedule:
    """The schedule of a run.

    Raises:
        SettingError: there is none of that name; the hint is the nearest.
    """
    if settings.schedule not in SCHEDULES.names():
        raise SettingError(
            f"{{schedule}} expects one of {', '.join(SCHEDULES.names())}, got {settings.schedule!r:.80}.",
            hint=SCHEDULES.nearest(settings.schedule),
        )
    return SCHEDULES.get(settings.schedule)(settings)
