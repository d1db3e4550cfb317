"""A task that a device names: what it belongs to, and whether it is still wanted."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from sqlalchemy import Text, and_, bindparam, cast, exists, select, true
from sqlalchemy.exc import DatabaseError

from edgefl.errors import EdgeflError
from edgefl_server.aggregation import Assignment, AssignmentState, FoldState
from edgefl_server.storage.cohorts import STANDING, TASK, Gathering, assignment_of, gathering_of, with_standing
from edgefl_server.storage.sessions import Session
from edgefl_server.storage.statements import Row, Statement
from edgefl_server.storage.tables import assignments, folds, outcomes, runs, versions

__all__ = ["FoundTask", "UnknownTaskError", "UnreadableRunError", "find_task", "has_open_task", "reading"]

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
_FIND = Statement(
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


_HAS_OPEN_TASK = Statement(
    select(assignments.c.task_id)
    .where(assignments.c.device == bindparam("device"), assignments.c.state == AssignmentState.OPEN.value)
    .limit(1)
)


class UnknownTaskError(EdgeflError):
    """The device has no such task."""


class UnreadableRunError(EdgeflError):
    """A run of which what is kept makes no sense: the server's trouble, and none of the device that asked."""


@dataclass(frozen=True)
class FoundTask:
    """A task with what belongs to it. Each part is read when it is needed: one that makes no sense spoils no other.

    Attributes:
        task_id: its id.
        run: its run.
        fold: the number of the fold for which it was handed out.
        fold_why: what ended it.
        base_weights_hash: what it starts from.
        layout_hash: of its run's model.
        weight_size: elements of the layout's weight section.
        statistic_size: elements of the layout's statistic section.
        limits_text: of its run's model, as they are kept.
        digest: of its outcome; None: it has none.
        size: of its outcome, in bytes.
        in_latest_cohort: it is of the cohort that is asked now.
        any_overdue: there are tasks in that cohort, maybe this one, that are out of time and not ended yet.
        row: what was found.
    """

    task_id: str
    run: str
    fold: int
    fold_why: str
    base_weights_hash: str
    layout_hash: str
    weight_size: int
    statistic_size: int
    limits_text: str
    digest: str | None
    size: int | None
    in_latest_cohort: bool
    any_overdue: bool
    row: Row

    @property
    def state(self) -> AssignmentState:
        """The state of the task; raises `UnreadableRunError`."""
        with reading(self.run):
            return AssignmentState(self.row.state)

    @property
    def assignment(self) -> Assignment:
        """The task; raises `UnreadableRunError`."""
        with reading(self.run):
            return assignment_of(self.row)

    @property
    def fold_state(self) -> FoldState:
        """Reads where the fold stands for which it was handed out; raises `UnreadableRunError`."""
        with reading(self.run):
            return FoldState(self.row.task_fold_state)

    @property
    def gathering(self) -> Gathering:
        """Reads what its run works for now; raises `UnreadableRunError`."""
        with reading(self.run):
            return gathering_of(self.row)

    @property
    def is_wanted(self) -> bool:
        """Whether an outcome of it would be taken; raises `UnreadableRunError`."""
        if self.state is not AssignmentState.OPEN or not self.in_latest_cohort:
            return False
        return self.gathering.standing.state.takes_outcomes


def find_task(session: Session, device: str, task_id: str, now: float) -> FoundTask:
    """A task of a device, with what belongs to it at a time.

    Raises:
        UnknownTaskError: the device has no such task.
    """
    row = session.execute(_FIND, {"task_id": task_id, "device": device, "now": now}).one_or_none()
    if row is None:
        raise UnknownTaskError(f"The device has no task {task_id}.", hint="Drop it and ask for the next one.")
    return FoundTask(
        task_id,
        row.run,
        row.task_fold,
        row.task_fold_why,
        row.weights_hash,
        row.layout_hash,
        row.weight_size,
        row.statistic_size,
        row.limits_text,
        row.digest,
        row.size,
        row.task_cohort == row.cohort,
        bool(row.any_overdue),
        row,
    )


def has_open_task(session: Session, device: str) -> bool:
    """Whether a device has an open task of any run."""
    return session.scalar(_HAS_OPEN_TASK, {"device": device}) is not None


@contextmanager
def reading(run_id: str) -> Iterator[None]:
    """Whatever goes wrong with what is kept of a run becomes an `UnreadableRunError`."""
    try:
        yield
    except (DatabaseError, UnreadableRunError):
        raise
    except Exception as error:
        raise UnreadableRunError(f"Run {run_id} cannot be read: {type(error).__name__}: {error}") from error
