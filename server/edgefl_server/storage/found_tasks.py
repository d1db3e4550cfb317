"""A task that a device names: what it belongs to, and whether it is still wanted."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Text, and_, bindparam, cast, exists, select, true
from sqlalchemy.orm import Session

from edgefl_server.aggregation import Assignment, AssignmentState, FoldState
from edgefl_server.storage.cohorts import STANDING, TASK, Gathering, assignment_of, gathering_of, with_standing
from edgefl_server.storage.tables import assignments, folds, outcomes, runs, versions

__all__ = ["FoundTask", "find_task"]

_HANDED_OUT = folds.alias("handed_out")
_OTHERS = assignments.alias("others")
_ANY_OVERDUE = (
    exists()
    .where(
        _OTHERS.c.run == runs.c.run,
        _OTHERS.c.cohort == runs.c.cohort,
        _OTHERS.c.state == AssignmentState.OPEN.value,
        _OTHERS.c.leased_to_the_end == true(),
        _OTHERS.c.leased_until_clock <= bindparam("now"),
    )
    .correlate(runs)
)
_FIND = (
    with_standing(
        select(
            *STANDING,
            *TASK,
            assignments.c.task_id,
            assignments.c.cohort.label("task_cohort"),
            _HANDED_OUT.c.number.label("task_fold"),
            _HANDED_OUT.c.state.label("task_fold_state"),
            _HANDED_OUT.c.why.label("task_fold_why"),
            versions.c.weights_hash,
            runs.c.statistic_size,
            runs.c.layout_hash,
            cast(runs.c.limits, Text).label("limits_text"),
            outcomes.c.digest,
            outcomes.c.size,
            _ANY_OVERDUE.label("any_overdue"),
        )
        .select_from(assignments)
        .join(runs, runs.c.run == assignments.c.run)
    )
    .join(_HANDED_OUT, and_(_HANDED_OUT.c.run == assignments.c.run, _HANDED_OUT.c.number == assignments.c.fold))
    .join(versions, and_(versions.c.run == assignments.c.run, versions.c.number == assignments.c.version))
    .outerjoin(outcomes, outcomes.c.task_id == assignments.c.task_id)
    .where(assignments.c.task_id == bindparam("task_id"), assignments.c.device == bindparam("device"))
)


@dataclass(frozen=True)
class FoundTask:
    """A task with what it belongs to.

    Attributes:
        task_id: its id.
        assignment: the task.
        fold: the number of the fold for which it was handed out.
        fold_state: where that stands.
        fold_why: what ended it.
        gathering: what its run works for now; raises where that cannot be read.
        base_weights_hash: what it starts from.
        layout_hash: of its run's model.
        statistic_size: elements of the layout's statistic section.
        limits_text: of its run's model, as they are kept.
        digest: of its outcome; None: it has none.
        size: of its outcome, in bytes.
        in_latest_cohort: it is of the cohort that is asked now.
        any_overdue: there are tasks in that cohort, maybe this one, that are out of time and not ended yet.
    """

    task_id: str
    assignment: Assignment
    fold: int
    fold_state: FoldState
    fold_why: str
    gathering: Gathering
    base_weights_hash: str
    layout_hash: str
    statistic_size: int
    limits_text: str
    digest: str | None
    size: int | None
    in_latest_cohort: bool
    any_overdue: bool

    @property
    def is_wanted(self) -> bool:
        """Whether an outcome of it would be taken."""
        is_open = self.assignment.state is AssignmentState.OPEN
        return is_open and self.in_latest_cohort and self.gathering.standing.state.takes_outcomes


def find_task(session: Session, device: str, task_id: str, now: float) -> FoundTask:
    """A task of a device, with what belongs to it at a time.

    Raises:
        KeyError: the device has no such task.
    """
    row = session.execute(_FIND, {"task_id": task_id, "device": device, "now": now}).one_or_none()
    if row is None:
        raise KeyError(task_id)
    return FoundTask(
        task_id,
        assignment_of(row),
        row.task_fold,
        FoldState(row.task_fold_state),
        row.task_fold_why,
        gathering_of(row),
        row.weights_hash,
        row.layout_hash,
        row.statistic_size,
        row.limits_text,
        row.digest,
        row.size,
        row.task_cohort == row.cohort,
        bool(row.any_overdue),
    )
