"""Tasks: which work a device gets, whether it is still wanted, what it may fetch."""

from __future__ import annotations

from collections.abc import Collection

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from edgefl.wire.messages import ExtraVector, Task
from edgefl_server.aggregation import Assignment, AssignmentState, Round, RunSettings, strategy_for, task_seed
from edgefl_server.storage.round_rows import Disposition, RunState, load_round, save_round, task_id_of
from edgefl_server.storage.state import ServerState
from edgefl_server.storage.tables import AssignmentRow, DeviceRow, OutcomeRow, RoundRow, RunRow

__all__ = ["active_runs", "devices_with_tasks", "ended_runs", "may_fetch", "next_task", "places", "renew_lease"]


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
        return _task(state, session, run, after, assignment, now)


def active_runs(state: ServerState, population: str) -> int:
    """How many runs may still have work for a population."""
    with state.database.read() as session:
        count = session.scalar(
            select(func.count())
            .select_from(RunRow)
            .where(RunRow.population == population, RunRow.state == RunState.ACTIVE)
        )
    return count or 0


def devices_with_tasks(state: ServerState) -> list[str]:
    """The devices that have an open task of any run."""
    with state.database.read() as session:
        open_ones = select(AssignmentRow.device).where(AssignmentRow.state == AssignmentState.OPEN.value)
        return list(session.scalars(open_ones.distinct()))


def ended_runs(state: ServerState, population: str, runs: Collection[str]) -> list[str]:
    """Those of the runs that are over, or that the population never had: there will be no task of them any more."""
    if not runs:
        return []
    with state.database.read() as session:
        active = set(
            session.scalars(
                select(RunRow.run).where(
                    RunRow.population == population, RunRow.state == RunState.ACTIVE, RunRow.run.in_(runs)
                )
            )
        )
    return [run for run in runs if run not in active]


def places(state: ServerState, population: str) -> int:
    """How many tasks the runs of a population could hand out now."""
    with state.database.read() as session:
        runs = session.scalars(
            select(RunRow).where(RunRow.population == population, RunRow.state == RunState.ACTIVE)
        ).all()
        now = state.clock()
        return sum(load_round(session, run, run.round).places(now) for run in runs)


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
    """Whether an open task of the device names this model, these weights or this vector."""
    with state.database.read() as session:
        named = session.execute(
            select(RunRow, RoundRow)
            .join(AssignmentRow, RunRow.run == AssignmentRow.run)
            .join(RoundRow, (RoundRow.run == AssignmentRow.run) & (RoundRow.number == AssignmentRow.round))
            .where(AssignmentRow.device == device, AssignmentRow.state == AssignmentState.OPEN.value)
        )
        return any(
            digest in (run.model_hash, row.base_weights_hash, *(each for _, each in _named_vectors(run, row)))
            for run, row in named
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


def _task(
    state: ServerState, session: Session, run: RunRow, current: Round, assignment: Assignment, now: float
) -> Task:
    settings: RunSettings = current.settings
    row = session.get_one(RoundRow, (run.run, run.round))
    demand = strategy_for(settings, run.weight_size).demand
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
        kind=demand.kind,
        mu=demand.mu,
        correction=demand.correction,
        extra_vectors=tuple(
            ExtraVector(name, digest, state.weights.size(digest)) for name, digest in _named_vectors(run, row)
        ),
        continues=_latest_folded(session, run, assignment.device),
        clip_norm=settings.clip_norm,
        codec=settings.codec,
        # At least a second: 0 would say that there is no deadline.
        deadline_seconds=0.0 if current.deadline is None else max(1.0, current.deadline - now),
        model_bytes=state.models.size(run.model_hash),
        base_weights_bytes=state.weights.size(row.base_weights_hash),
    )


def _named_vectors(run: RunRow, row: RoundRow) -> tuple[tuple[str, str], ...]:
    """The strategy's slots that the round's tasks name, with their hashes."""
    if not row.base_slots:
        return ()
    demand = strategy_for(RunSettings.from_json(run.settings), run.weight_size).demand
    return tuple((name, row.base_slots[name]) for name in demand.vectors)


def _latest_folded(session: Session, run: RunRow, device: str) -> str:
    """The device's latest task of the run that is part of the weights; empty: none is."""
    task_id = session.scalar(
        select(OutcomeRow.task_id)
        .join(AssignmentRow, AssignmentRow.task_id == OutcomeRow.task_id)
        .where(
            AssignmentRow.device == device,
            AssignmentRow.run == run.run,
            OutcomeRow.disposition == Disposition.FOLDED,
        )
        .order_by(OutcomeRow.round.desc())
        .limit(1)
    )
    return task_id or ""
