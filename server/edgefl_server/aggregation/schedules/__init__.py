"""Schedules: who gets which task when, and what is folded together; one module each. One comes here to add another."""

from collections.abc import Callable

from edgefl.errors import EdgeflError, InvalidSettingError
from edgefl.plugins import Registry
from edgefl_server.aggregation.hyperparameters import SettingError, settings_of
from edgefl_server.aggregation.root_device import root_device_of
from edgefl_server.aggregation.schedules.base import (
    Assignment,
    AssignmentState,
    Change,
    Concerned,
    FoldState,
    Schedule,
    Standing,
    ending,
)
from edgefl_server.aggregation.schedules.buffered import Buffered
from edgefl_server.aggregation.schedules.synchronous import Synchronous
from edgefl_server.aggregation.settings import RunSettings
from edgefl_server.aggregation.staleness import BUFFERED
from edgefl_server.aggregation.update_codecs import check_by_acceptance

__all__ = [
    "SCHEDULES",
    "Assignment",
    "AssignmentState",
    "Buffered",
    "Change",
    "Concerned",
    "FoldState",
    "Schedule",
    "Standing",
    "Synchronous",
    "devices_needed",
    "ending",
    "schedule_for",
]


_METHODS = tuple(name for name, each in vars(Schedule).items() if callable(each) and not name.startswith("_"))


def _check(name: str, entry: object) -> None:
    if not callable(entry):
        raise InvalidSettingError("it makes no schedule from the settings of a run.")
    lacking = _lacking(entry)
    if isinstance(entry, type) and lacking:
        raise InvalidSettingError(f"{entry.__name__} lacks {lacking}.")


def _lacking(schedule: object) -> str:
    return ", ".join(name for name in _METHODS if not callable(getattr(schedule, name, None)))


SCHEDULES: Registry[Callable[[RunSettings], Schedule]] = Registry("schedule", "edgefl.schedules", check=_check)
SCHEDULES.register("synchronous")(Synchronous)
SCHEDULES.register(BUFFERED)(Buffered)


def schedule_for(settings: RunSettings) -> Schedule:
    """The schedule of a run.

    Raises:
        SettingError: there is none of that name, the hint is the nearest; it makes no schedule of these settings, one
            of them has no meaning with it, or it does not go with their codec.
    """
    name = settings.schedule
    if name not in SCHEDULES.names():
        raise SettingError(
            f"{{schedule}} expects one of {', '.join(SCHEDULES.names())}, got {name!r:.80}.",
            hint=SCHEDULES.nearest(name),
        )
    unused = getattr(SCHEDULES.get(name), "unused", ())
    for each in settings_of(RunSettings):
        if each.name in unused and getattr(settings, each.name) != each.default:
            raise SettingError(f"{{{each.name}}} has no meaning with {{schedule}} {name}.", hint="Leave it out.")
    try:
        schedule = SCHEDULES.get(name)(settings)
    except EdgeflError:
        raise
    except Exception as error:  # it may come from outside
        raise SettingError(
            f"{{schedule}} {name} cannot be made of these settings: {type(error).__name__}: {error}"
        ) from error
    lacking = _lacking(schedule)
    if lacking:
        raise SettingError(f"{{schedule}} {name} makes a {type(schedule).__name__}, which lacks {lacking}.")
    if root_device_of(settings) and not getattr(schedule, "asks_root_device", False):
        raise SettingError(
            f"{{root_device}} does not go with {{schedule}} {name}: it has no rounds in each of which one is asked.",
            hint="Leave {schedule} out, or take another {rule}.",
        )
    if schedule.by_acceptance:
        check_by_acceptance(settings.codec, name)
    return schedule


def devices_needed(settings: RunSettings) -> int:
    """The number of devices without which no fold of a run ends.

    Raises:
        SettingError: the settings have no schedule, see `schedule_for`.
    """
    return int(getattr(schedule_for(settings), "devices_needed", settings.target))
