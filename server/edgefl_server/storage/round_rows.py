"""Rounds as rows: reads the pure state machine from the database and writes back what changed."""

from __future__ import annotations

from sqlalchemy import ColumnElement, func, select, update
from sqlalchemy.orm import Session

from edgefl_server.aggregation import Assignment, AssignmentState, Round, RoundState, RunSettings, rest_seconds
from edgefl_server.storage.tables import AssignmentRow, DeviceRow, OutcomeRow, RoundRow, RunRow

__all__ = ["Disposition", "RunState", "load_round", "rests_until", "save_round", "task_id_of", "took_too_long"]

_STATES = {state.value: state for state in AssignmentState}


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
    NOTED = "noted"
    """The device declined or failed: there is nothing to fold."""


def task_id_of(run: str, number: int, assignment: Assignment) -> str:
    """Task ids sort by device inside a round, which fixes the order of folding for given devices."""
    return f"{run}-{number:06d}-{assignment.device}-{assignment.attempt:03d}"


def load_round(session: Session, run: RunRow, number: int) -> Round:
    """A round of a run as the state machine knows it."""
    row = session.get_one(RoundRow, (run.run, number))
    # Columns instead of objects: every poll of every device comes through here.
    rows = session.execute(
        select(
            AssignmentRow.device,
            AssignmentRow.attempt,
            AssignmentRow.assigned_at,
            AssignmentRow.leased_until,
            AssignmentRow.state,
            AssignmentRow.ended_at,
            AssignmentRow.temporary,
        )
        .where(AssignmentRow.run == run.run, AssignmentRow.round == number)
        .order_by(AssignmentRow.position)
    )
    assignments = tuple(
        Assignment(device, attempt, assigned_at, leased_until, _STATES[state], ended_at, temporary)
        for device, attempt, assigned_at, leased_until, state, ended_at, temporary in rows
    )
    return Round(
        settings=RunSettings.from_json(run.settings),
        state=RoundState(row.state),
        assignments=assignments,
        started_at=row.started_at,
        why=row.why,
        # Counted only where it matters, for the same reason.
        enrolled=_enrolled(session, run) if any(each.failed for each in assignments) else 0,
    )


def save_round(session: Session, run: RunRow, number: int, before: Round, after: Round, now: float) -> None:
    """Writes what a transition changed, discards the outcomes of a failed round and moves the run on.

    The transition to DONE is not for this function: it comes with new weights.
    """
    row = session.get_one(RoundRow, (run.run, number))
    row.state, row.why, row.started_at = after.state.value, after.why, after.started_at
    if after.state is RoundState.FOLDING and before.state is not RoundState.FOLDING:
        row.enrolled = _enrolled(session, run)
    known = {(each.device, each.attempt): each for each in before.assignments}
    for position, assignment in enumerate(after.assignments):
        old = known.get((assignment.device, assignment.attempt))
        if old == assignment:
            continue
        values = {
            "state": assignment.state.value,
            "assigned_at": assignment.assigned_at,
            "leased_until": assignment.leased_until,
            "ended_at": assignment.ended_at,
            "temporary": assignment.temporary,
        }
        task_id = task_id_of(run.run, number, assignment)
        if old is None:
            session.add(
                AssignmentRow(
                    task_id=task_id,
                    run=run.run,
                    round=number,
                    device=assignment.device,
                    attempt=assignment.attempt,
                    position=position,
                    **values,
                )
            )
        else:
            session.execute(update(AssignmentRow).where(AssignmentRow.task_id == task_id).values(**values))
    if after.state is RoundState.FAILED and before.state is not RoundState.FAILED:
        row.ended_at = now
        session.execute(
            update(OutcomeRow)
            .where(
                OutcomeRow.run == run.run, OutcomeRow.round == number, OutcomeRow.disposition == Disposition.ACCEPTED
            )
            .values(disposition=Disposition.DISCARDED)
        )


def rests_until(session: Session, run: RunRow, device: str) -> float:
    """Until when a device that held places of a run for too long gets no other; 0: it did not."""
    settings = RunSettings.from_json(run.settings)
    times, latest = session.execute(
        select(func.count(), func.max(AssignmentRow.ended_at)).where(
            AssignmentRow.device == device,
            AssignmentRow.state == AssignmentState.FAILED.value,
            AssignmentRow.run == run.run,
            took_too_long(settings),
        )
    ).one()
    return latest + rest_seconds(settings, times) if times else 0.0


def took_too_long(settings: RunSettings) -> ColumnElement[bool]:
    """The tasks that ended with their longest time, or after it."""
    return AssignmentRow.ended_at >= AssignmentRow.assigned_at + settings.effective_task_seconds


def _enrolled(session: Session, run: RunRow) -> int:
    count = select(func.count()).select_from(DeviceRow).where(DeviceRow.population == run.population)
    return session.scalar(count) or 0
