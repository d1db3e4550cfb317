"""Rounds as rows: reads the pure state machine from the database and writes back what changed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields

from sqlalchemy import BindParameter, ColumnElement, Float, and_, bindparam, func, insert, select, update
from sqlalchemy.exc import DatabaseError
from sqlalchemy.orm import Session

from edgefl.errors import EdgeflError
from edgefl.wire.messages import Reason
from edgefl_server.aggregation import Assignment, AssignmentState, Round, RoundState, RunSettings, rest_seconds
from edgefl_server.storage.tables import AssignmentRow, DeviceRow, OutcomeRow, RoundRow, RunRow, table

__all__ = [
    "OUT_OF_TIME",
    "Disposition",
    "KeptTask",
    "RunState",
    "UnknownTaskError",
    "UnreadableRunError",
    "find_task",
    "has_open_task",
    "load_round",
    "reading",
    "rests_until",
    "save_round",
    "stop_round",
    "task_id_of",
    "took_too_long",
]

OUT_OF_TIME = Reason.OUT_OF_TIME.name.lower()
_CHANGING = ("state", "assigned_clock", "leased_until_clock", "ended_clock", "temporary")
# No column that holds JSON: what became of a task can be said of a run that cannot be read, too.
_TASK = (
    select(
        AssignmentRow.task_id,
        AssignmentRow.run,
        AssignmentRow.round,
        AssignmentRow.state,
        RunRow.layout_hash,
        RunRow.weight_size,
        RunRow.statistic_size,
        RoundRow.state,
        RoundRow.why,
        RoundRow.base_weights_hash,
        OutcomeRow.digest,
        OutcomeRow.size,
    )
    .join(RunRow, RunRow.run == AssignmentRow.run)
    .join(RoundRow, and_(RoundRow.run == AssignmentRow.run, RoundRow.number == AssignmentRow.round))
    .outerjoin(OutcomeRow, OutcomeRow.task_id == AssignmentRow.task_id)
    .where(AssignmentRow.task_id == bindparam("task_id"), AssignmentRow.device == bindparam("device"))
)
_HAS_OPEN_TASK = (
    select(AssignmentRow.task_id)
    .where(AssignmentRow.device == bindparam("device"), AssignmentRow.state == AssignmentState.OPEN.value)
    .limit(1)
)
_STATES = {state.value: state for state in AssignmentState}
# Columns instead of objects, and made once: every call for work comes through here.
_ASSIGNMENTS = (
    select(
        AssignmentRow.device,
        AssignmentRow.attempt,
        AssignmentRow.assigned_clock,
        AssignmentRow.leased_until_clock,
        AssignmentRow.state,
        AssignmentRow.ended_clock,
        AssignmentRow.temporary,
    )
    .where(AssignmentRow.run == bindparam("run"), AssignmentRow.round == bindparam("round"))
    .order_by(AssignmentRow.position)
)


class RunState:
    """What a run's ``state`` can be."""

    ACTIVE, DONE, FAILED, STOPPED = "active", "done", "failed", "stopped"


class Disposition:
    """What an accepted outcome's ``disposition`` can be."""

    ACCEPTED = "accepted"
    """Will be folded when its round closes."""
    FOLDED = "folded"
    """Is part of the round's weights."""
    DISCARDED = "discarded"
    """Its round failed or was stopped."""
    DAMAGED = "damaged"
    """It was accepted, and its file was gone or damaged when its round was folded without it."""
    NOTED = "noted"
    """The device declined or failed: there is nothing to fold."""


_INSERT = insert(table(AssignmentRow))
_UPDATE = (
    update(table(AssignmentRow))
    .where(table(AssignmentRow).c.task_id == bindparam("of"))
    .values({each: bindparam(each) for each in _CHANGING})
)


class UnknownTaskError(EdgeflError):
    """The device has no such task."""


class UnreadableRunError(EdgeflError):
    """What is kept of a run makes no sense: the server's trouble, and none of the device that asked."""


@dataclass(frozen=True)
class KeptTask:
    """A task with what its run and its round say of it, and its outcome."""

    task_id: str
    run: str
    round: int
    state: str
    layout_hash: str
    weight_size: int
    statistic_size: int
    round_state: str
    round_why: str
    base_weights_hash: str
    outcome_digest: str | None
    outcome_size: int | None


_KEPT = tuple(field.name for field in fields(KeptTask))


def find_task(session: Session, device: str, task_id: str) -> KeptTask:
    """A task of a device.

    Raises:
        UnknownTaskError: the device has no such task.
    """
    found = session.execute(_TASK, {"task_id": task_id, "device": device}).one_or_none()
    if found is None:
        raise UnknownTaskError(f"The device has no task {task_id}.", hint="Drop it and ask for the next one.")
    return KeptTask(**dict(zip(_KEPT, found, strict=True)))


def has_open_task(session: Session, device: str) -> bool:
    """Whether a device has an open task of any run."""
    return session.scalar(_HAS_OPEN_TASK, {"device": device}) is not None


@contextmanager
def reading(run_id: str) -> Iterator[None]:
    """Whatever goes wrong with what is kept of a run becomes an `UnreadableRunError`."""
    try:
        yield
    except DatabaseError:
        raise
    except Exception as error:
        raise UnreadableRunError(f"Run {run_id} cannot be read: {type(error).__name__}: {error}") from error


def task_id_of(run: str, number: int, assignment: Assignment) -> str:
    """Task ids sort by device inside a round, which fixes the order of folding for given devices."""
    return f"{run}-{number:06d}-{assignment.device}-{assignment.attempt:03d}"


def load_round(session: Session, run: RunRow, number: int) -> Round:
    """A round of a run as the state machine knows it."""
    row = session.get_one(RoundRow, (run.run, number))
    rows = session.execute(_ASSIGNMENTS, {"run": run.run, "round": number})
    assignments = tuple(
        Assignment(device, attempt, assigned_at, leased_until, _STATES[state], ended_at, temporary)
        for device, attempt, assigned_at, leased_until, state, ended_at, temporary in rows
    )
    return Round(
        settings=RunSettings.from_json(run.settings),
        state=RoundState(row.state),
        assignments=assignments,
        opened_at=row.opened_clock,
        started_at=row.started_clock,
        why=row.why,
        # Counted only where it matters, for the same reason.
        enrolled=_enrolled(session, run) if any(each.failed for each in assignments) else 0,
    )


def save_round(session: Session, run: RunRow, number: int, before: Round, after: Round, now: float) -> None:
    """Writes what a transition changed, discards the outcomes of a failed round and moves the run on.

    The transition to DONE is not for this function: it comes with new weights.
    """
    row = session.get_one(RoundRow, (run.run, number))
    row.state, row.why, row.started_clock = after.state.value, after.why, after.started_at
    if after.state is RoundState.FOLDING and before.state is not RoundState.FOLDING:
        row.enrolled = _enrolled(session, run)
    known = {(each.device, each.attempt): each for each in before.assignments}
    for position, assignment in enumerate(after.assignments):
        old = known.get((assignment.device, assignment.attempt))
        if old == assignment:
            continue
        values = {
            "state": assignment.state.value,
            "assigned_clock": assignment.assigned_at,
            "leased_until_clock": assignment.leased_until,
            "ended_clock": assignment.ended_at,
            "temporary": assignment.temporary,
        }
        task_id = task_id_of(run.run, number, assignment)
        if old is None:
            keys = {"task_id": task_id, "run": run.run, "round": number, "device": assignment.device}
            session.execute(_INSERT, {**keys, "attempt": assignment.attempt, "position": position, **values})
        else:
            session.execute(_UPDATE, {"of": task_id, **values})
    if after.state is RoundState.FAILED and before.state is not RoundState.FAILED:
        row.ended_clock = now
        _discard(session, run.run, number)


def stop_round(session: Session, run_id: str, number: int, why: str, now: float) -> None:
    """Ends a round that is not finished, as `Round.stop` does, without reading what may not be readable."""
    over = (RoundState.DONE.value, RoundState.FAILED.value)
    round_row = (RoundRow.run == run_id, RoundRow.number == number)
    apart = {"synchronize_session": False}
    if session.scalar(select(RoundRow.state).where(*round_row)) in over:
        return
    session.execute(
        update(RoundRow).where(*round_row).values(state=RoundState.FAILED.value, why=why, ended_clock=now),
        execution_options=apart,
    )
    session.execute(
        update(AssignmentRow)
        .where(
            AssignmentRow.run == run_id,
            AssignmentRow.round == number,
            AssignmentRow.state == AssignmentState.OPEN.value,
        )
        .values(state=AssignmentState.ABANDONED.value),
        execution_options=apart,
    )
    _discard(session, run_id, number)


def _discard(session: Session, run_id: str, number: int) -> None:
    session.execute(
        update(OutcomeRow)
        .where(OutcomeRow.run == run_id, OutcomeRow.round == number, OutcomeRow.disposition == Disposition.ACCEPTED)
        .values(disposition=Disposition.DISCARDED)
    )


def rests_until(session: Session, run: RunRow, device: str) -> float:
    """Until when a device that held places of a run for too long gets no other; 0: it did not."""
    settings = RunSettings.from_json(run.settings)
    times, latest = session.execute(
        _TOO_LONG, {"device": device, "run": run.run, "seconds": settings.effective_task_seconds}
    ).one()
    return latest + rest_seconds(settings, times) if times else 0.0


def took_too_long(seconds: float | BindParameter[float]) -> ColumnElement[bool]:
    """The tasks that were ended because their longest time was over: nobody sent an outcome for them."""
    return and_(
        AssignmentRow.state == AssignmentState.FAILED.value,
        AssignmentRow.ended_clock >= AssignmentRow.assigned_clock + seconds,
        ~select(OutcomeRow.task_id).where(OutcomeRow.task_id == AssignmentRow.task_id).exists(),
    )


_TOO_LONG = select(func.count(), func.max(AssignmentRow.ended_clock)).where(
    AssignmentRow.device == bindparam("device"),
    AssignmentRow.run == bindparam("run"),
    took_too_long(bindparam("seconds", type_=Float)),
)


def _enrolled(session: Session, run: RunRow) -> int:
    count = select(func.count()).select_from(DeviceRow).where(DeviceRow.population == run.population)
    return session.scalar(count) or 0
