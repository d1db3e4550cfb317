"""Leases: which tasks are over, who may try again, and when; the same for every schedule of edgefl's own."""

from __future__ import annotations

from dataclasses import replace

from edgefl_server.aggregation.schedules.base import Assignment, AssignmentState, Change, Standing
from edgefl_server.aggregation.settings import RunSettings

__all__ = [
    "Changed",
    "abandoned",
    "handed_out",
    "is_hopeless",
    "may_try_again",
    "renewed",
    "rest_seconds",
    "without_overdue",
]

_FIRST_RETRY_SECONDS, _LONGEST_RETRY_SECONDS = 10.0, 60.0
"""A device that declined or failed is asked again in the same cohort after a pause that doubles each time."""

Changed = dict[tuple[str, int], Assignment]
"""Tasks as they are afterwards, by device and attempt."""


def handed_out(
    settings: RunSettings, standing: Standing, device: str, before: Assignment | None, now: float
) -> tuple[Standing, Assignment]:
    """Hands a device a new task, from the newest weights; `before` is its latest one, which is over."""
    ends_at = now + settings.effective_task_seconds
    new = Assignment.of(device, before, assigned_at=now, ends_at=ends_at, leased_until=now, version=standing.version)
    new = _leased(settings, new, now)
    standing = standing.counting(None, new)
    return (replace(standing, started_at=now) if standing.started_at is None else standing), new


def renewed(settings: RunSettings, standing: Standing, mine: Assignment | None, now: float) -> Change | None:
    """Extends the lease of a device's open task, never beyond its longest time; None when it is not wanted."""
    if mine is None or mine.state is not AssignmentState.OPEN or not standing.state.takes_outcomes:
        return None
    return None if now >= mine.ends_at else Change(standing, changed=(_leased(settings, mine, now),))


def without_overdue(standing: Standing, overdue: tuple[Assignment, ...], now: float) -> tuple[Standing, Changed]:
    """Ends the tasks of devices that kept renewing until the longest time was over.

    A device that fell silent before keeps its task until another one asks for the place: it may have been switched off,
    and come back with an outcome.
    """
    changed = {}
    for each in overdue:
        ended = replace(each, state=AssignmentState.OUT_OF_TIME, ended_at=now)
        standing = standing.counting(each, ended)
        changed[each.device, each.attempt] = ended
    return standing, changed


def abandoned(standing: Standing, changed: Changed, task: Assignment, now: float) -> tuple[Standing, Changed]:
    """Ends a task so that another device, or the same one, may have its place."""
    ended = replace(task, state=AssignmentState.ABANDONED, ended_at=now)
    return standing.counting(task, ended), {**changed, (task.device, task.attempt): ended}


def may_try_again(settings: RunSettings, before: Assignment, now: float) -> bool:
    """Whether a device may have another task after one that was not done.

    Whoever was silent until its task's longest time was over waits until others had a whole lease to take its place.
    """
    if before.state is AssignmentState.OPEN:
        return now >= max(before.ends_at, before.leased_until + settings.lease_seconds)
    if before.state is AssignmentState.ABANDONED:
        return True
    # Those that were done count for nothing: in a cohort that goes on over all folds there are ever more.
    return now >= before.ended_at + _retry_seconds(before.attempt - before.turn)


def is_hopeless(settings: RunSettings, standing: Standing) -> bool:
    """Whether more attempts would fail as well.

    Enough devices have failed, or there are no others: one device alone never ends a fold of many, and where it is the
    only one it is not asked for ever.
    """
    most = settings.effective_max_failures
    if standing.failed_devices >= most:
        return True
    return 0 < standing.enrolled <= standing.failed_devices and standing.failed_attempts >= most


def rest_seconds(settings: RunSettings, times: int) -> float:
    """The seconds for which a device held a place for nothing, then twice as many each time.

    In a fleet that does without it, a device that never finishes delays ever fewer folds.
    """
    return float(settings.effective_task_seconds * 2.0 ** min(times - 1, 30))


def _retry_seconds(attempt: int) -> float:
    """The pause before a device that gave up its n-th attempt is asked again in the same cohort."""
    return float(min(_FIRST_RETRY_SECONDS * 2.0 ** min(attempt - 1, 30), _LONGEST_RETRY_SECONDS))


def _leased(settings: RunSettings, task: Assignment, now: float) -> Assignment:
    """Leases a task from now on, never beyond its longest time."""
    return replace(task, leased_until=min(now + settings.lease_seconds, task.ends_at))
