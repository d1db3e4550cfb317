"""Tasks: which work a device gets, whether it is still wanted, what it may fetch."""

from __future__ import annotations

from sqlalchemy import func, or_, select
from sqlalchemy.orm import Session

from edgefl.wire.messages import Task
from edgefl_server.aggregation import Assignment, AssignmentState, Round, RunSettings, task_seed
from edgefl_server.storage.round_rows import RunState, load_round, save_round, task_id_of
from edgefl_server.storage.state import ServerState
from edgefl_server.storage.tables import AssignmentRow, DeviceRow, RoundRow, RunRow

__all__ = ["active_runs", "may_fetch", "next_task", "renew_lease"]


def next_task(state: ServerState, device: DeviceRow) -> Task | None:
    """The device's open task, else a new one, else None."""
    with state.database.read() as session:
        # Most polls find nothing; they must not queue up for the writer.
        if _find(session, device, state.clock()) is None:
            return None
    with state.database.write() as session:
        now = state.clock()
        found = _find(session, device, now)
        if found is None:
            return None
        run, before, after = found
        save_round(session, run, run.round, before, after, now)
        assignment = after.latest(device.device)
        assert assignment is not None
        return _task(session, run, after, assignment, now)


def active_runs(state: ServerState, population: str) -> int:
    """How many runs may still have work for a population."""
    with state.database.read() as session:
        count = session.scalar(
            select(func.count())
            .select_from(RunRow)
            .where(RunRow.population == population, RunRow.state == RunState.ACTIVE)
        )
    return count or 0


def renew_lease(state: ServerState, device: str, task_id: str) -> float | None:
    """Says that a device still works on a task.

    Returns:
        The seconds of the new lease; None when the task is not wanted any more.

    Raises:
        KeyError: the device has no such task.
    """
    with state.database.write() as session:
        row = session.get(AssignmentRow, task_id)
        if row is None or row.device != device:
            raise KeyError(task_id)
        if row.state != AssignmentState.OPEN.value:
            return None
        run = session.get_one(RunRow, row.run)
        now = state.clock()
        before = load_round(session, run, row.round)
        after = before.renew(device, now)
        if after is None:
            return None
        save_round(session, run, row.round, before, after, now)
        return before.settings.lease_seconds


def may_fetch(state: ServerState, device: str, digest: str) -> bool:
    """Whether an open task of the device names this model or these weights."""
    with state.database.read() as session:
        return (
            session.scalar(
                select(AssignmentRow.task_id)
                .join(RunRow, RunRow.run == AssignmentRow.run)
                .join(RoundRow, (RoundRow.run == AssignmentRow.run) & (RoundRow.number == AssignmentRow.round))
                .where(
                    AssignmentRow.device == device,
                    AssignmentRow.state == AssignmentState.OPEN.value,
                    or_(RunRow.model_hash == digest, RoundRow.base_weights_hash == digest),
                )
                .limit(1)
            )
            is not None
        )


def _find(session: Session, device: DeviceRow, now: float) -> tuple[RunRow, Round, Round] | None:
    """The run that has work for the device, its round, and the round after handing out the work."""
    runs = session.scalars(
        select(RunRow)
        .where(RunRow.population == device.population, RunRow.state == RunState.ACTIVE)
        .order_by(RunRow.created_at, RunRow.run)
    ).all()
    rounds = [(run, load_round(session, run, run.round)) for run in runs]
    for run, before in rounds:
        renewed = before.renew(device.device, now)
        if renewed is not None:
            return run, before, renewed
    for run, before in rounds:
        assigned = before.assign(device.device, now)
        if assigned is not None:
            return run, before, assigned
    return None


def _task(session: Session, run: RunRow, current: Round, assignment: Assignment, now: float) -> Task:
    settings: RunSettings = current.settings
    row = session.get_one(RoundRow, (run.run, run.round))
    return Task(
        population=run.population,
        run=run.run,
        round=run.round,
        task_id=task_id_of(run.run, run.round, assignment),
        model_hash=run.model_hash,
        graph_hash=run.graph_hash,
        layout_hash=run.layout_hash,
        base_weights_hash=row.base_weights_hash,
        seed=task_seed(settings.seed, run.round, assignment.device),
        epochs=settings.epochs,
        max_steps=settings.max_steps,
        batch_size=settings.batch_size,
        learning_rate=settings.learning_rate,
        clip_norm=settings.clip_norm,
        codec=settings.codec,
        # At least a second: 0 would say that there is no deadline.
        deadline_seconds=0.0 if current.deadline is None else max(1.0, current.deadline - now),
    )
