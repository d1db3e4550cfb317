"""Tasks: which work a device gets, whether it is still wanted, what it may fetch."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass

from sqlalchemy import and_, bindparam, select
from sqlalchemy.exc import DatabaseError
from sqlalchemy.orm import Session

from edgefl.capabilities import lacks
from edgefl.errors import RunError
from edgefl.wire.messages import Correction, ExtraVector, SectionCodec, Task, Weighting
from edgefl_server.aggregation import (
    Assignment,
    AssignmentState,
    ModelLimits,
    Round,
    RunSettings,
    codec_seed,
    strategy_for,
    task_seed,
)
from edgefl_server.storage.round_rows import (
    Disposition,
    RunState,
    find_task,
    has_open_task,
    load_round,
    reading,
    rests_until,
    save_round,
    task_id_of,
)
from edgefl_server.storage.runs import readable_runs
from edgefl_server.storage.state import ServerState
from edgefl_server.storage.tables import AssignmentRow, DeviceRow, OutcomeRow, RoundRow, RunRow

__all__ = [
    "Found",
    "devices_with_tasks",
    "ended_runs",
    "look_for_task",
    "may_fetch",
    "next_task",
    "renew_lease",
    "work_for",
]

_HAND_OUT, _TO_ALL, _READ = "hand out tasks", "hand out tasks to every device", "read the round"
_ACTIVE = (
    select(RunRow, RoundRow)
    .outerjoin(RoundRow, and_(RoundRow.run == RunRow.run, RoundRow.number == RunRow.round))
    .where(RunRow.population == bindparam("population"), RunRow.state == RunState.ACTIVE)
    .order_by(RunRow.created_clock, RunRow.run)
)
"""With their open rounds, which `load_round` then finds in the session."""
_OPEN_ROUNDS = (
    select(RoundRow.run, RoundRow.number, RunRow.model_hash, RoundRow.base_weights_hash)
    .join(RunRow, RunRow.run == RoundRow.run)
    .join(AssignmentRow, and_(AssignmentRow.run == RoundRow.run, AssignmentRow.round == RoundRow.number))
    .where(AssignmentRow.device == bindparam("device"), AssignmentRow.state == AssignmentState.OPEN.value)
    .distinct()
)
_LATEST_FOLDED = (
    select(OutcomeRow.task_id)
    .join(AssignmentRow, AssignmentRow.task_id == OutcomeRow.task_id)
    .where(
        AssignmentRow.device == bindparam("device"),
        AssignmentRow.run == bindparam("run"),
        OutcomeRow.disposition == Disposition.FOLDED,
    )
    .order_by(OutcomeRow.round.desc())
    .limit(1)
)


@dataclass(frozen=True)
class Found:
    """What a device that asks for work gets.

    Attributes:
        task: its open task, else a new one; None: there is none that it could be given now.
        has_task: it has an open task; without `task`, of a run that cannot be read now.
    """

    task: Task | None
    has_task: bool


def next_task(state: ServerState, device: DeviceRow) -> Task | None:
    """The task of `look_for_task`."""
    return look_for_task(state, device).task


def look_for_task(state: ServerState, device: DeviceRow) -> Found:
    """The device's open task, else a new one, else None.

    A run with which this is not possible is passed over, and so is one whose task the device cannot do.
    """
    with state.database.read() as session:
        # Many find nothing, since they have done their part or pause; they must not queue up for the writer.
        if next(_offers(state, session, device, state.clock()), None) is None:
            return Found(None, has_open_task(session, device.device))
    with state.database.write() as session:
        now = state.clock()
        for run, before, after in _offers(state, session, device, now):
            assignment = after.latest(device.device)
            assert assignment is not None
            try:
                task = _task(state, session, run, after, assignment, now)
            except DatabaseError:
                raise
            except Exception as error:
                state.troubles.note(run.run, _HAND_OUT, error, now)
                continue
            state.troubles.clear(run.run, _HAND_OUT)
            why = _lacks(session, device, run, task)
            if why is not None:
                state.troubles.note(run.run, _TO_ALL, RunError(f"device {device.device[:8]} {why}"), now)
                continue
            save_round(session, run, run.round, before, after, now)
            return Found(task, True)
        return Found(None, has_open_task(session, device.device))


def _lacks(session: Session, device: DeviceRow, run: RunRow, task: Task) -> str | None:
    """What the device lacks to do the task; None: nothing."""
    target = ModelLimits.from_json(run.limits).target
    why = lacks(device.capabilities, task, target)
    if why is None:
        return None
    # The row may have been read long ago, and the device have enrolled again since.
    latest = session.scalar(select(DeviceRow.capabilities).where(DeviceRow.device == device.device))
    return lacks(latest or {}, task, target)


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


def work_for(state: ServerState, population: str) -> tuple[int, int]:
    """How many tasks the runs of a population could hand out now, and how many of its runs are not over."""
    with state.database.read() as session:
        now, active = state.clock(), 0
        places = 0
        for _, current in _rounds(state, session, population, now):
            active += 1
            places += current.places(now) if current is not None else 0
    return places, active


def renew_lease(state: ServerState, device: str, task_id: str) -> float | None:
    """Says that a device still works on a task.

    Returns:
        The seconds of the new lease, fewer where the task's longest time ends before; None when the task is not wanted
        any more.

    Raises:
        UnknownTaskError: the device has no such task.
    """
    with state.database.write() as session:
        task = find_task(session, device, task_id)
        if task.state != AssignmentState.OPEN.value:
            return None
        now = state.clock()
        with reading(task.run):
            run = session.get_one(RunRow, task.run)
            before = load_round(session, run, task.round)
        after = before.renew(device, now)
        if after is None:
            return None
        save_round(session, run, task.round, before, after, now)
        renewed = after.latest(device)
        assert renewed is not None
        return max(1.0, renewed.leased_until - now)


def may_fetch(state: ServerState, device: str, digest: str) -> bool:
    """Whether an open task of the device names this model, these weights or this vector."""
    with state.database.read() as session:
        open_rounds = session.execute(_OPEN_ROUNDS, {"device": device}).all()
        if any(digest in (model, weights) for _, _, model, weights in open_rounds):
            return True
        for run_id, number, _, _ in open_rounds:
            try:
                run, row = session.get_one(RunRow, run_id), session.get_one(RoundRow, (run_id, number))
                named = [each for _, each in _named_vectors(run, row)]
            except DatabaseError:
                raise
            except Exception as error:
                state.troubles.note(run_id, _READ, error, state.clock())
                continue
            if digest in named:
                return True
    return False


def _offers(
    state: ServerState, session: Session, device: DeviceRow, now: float
) -> Iterator[tuple[RunRow, Round, Round]]:
    """The runs that have work for the device, its round in each, and the round after handing out the work."""
    rounds = [
        (run, current)
        for run, current in _rounds(state, session, device.population, now)
        if run is not None and current is not None
    ]
    for run, before in rounds:
        renewed = before.renew(device.device, now)
        if renewed is not None:
            yield run, before, renewed
    for run, before in rounds:
        assigned = before.assign(device.device, now)
        if assigned is not None and now >= rests_until(session, run, device.device):
            yield run, before, assigned


def _rounds(
    state: ServerState, session: Session, population: str, now: float
) -> Iterator[tuple[RunRow | None, Round | None]]:
    """The active runs of a population with their current rounds; None for what cannot be read."""
    try:
        active: Iterable[tuple[str, RunRow | None]] = [
            (run.run, run) for run, _ in session.execute(_ACTIVE, {"population": population})
        ]
    except DatabaseError:
        raise
    except Exception:  # one of them cannot be read: each by itself
        active = readable_runs(state, session, RunRow.population == population, RunRow.state == RunState.ACTIVE)
    for run_id, run in active:
        current = None
        if run is not None:
            try:
                current = load_round(session, run, run.round)
            except DatabaseError:
                raise
            except Exception as error:
                state.troubles.note(run_id, _READ, error, now)
            else:
                state.troubles.clear(run_id, _READ)
        yield run, current


def _task(
    state: ServerState, session: Session, run: RunRow, current: Round, assignment: Assignment, now: float
) -> Task:
    settings: RunSettings = current.settings
    row = session.get_one(RoundRow, (run.run, run.round))
    demand = strategy_for(settings, run.weight_size).demand
    seed = task_seed(settings.seed, run.round, assignment.device)
    return Task(
        population=run.population,
        run=run.run,
        # A round is all three: its tasks start from what the one before left, and its cohort is folded together.
        version=run.round - 1,
        cohort=run.round,
        fold=run.round,
        schedule="synchronous",
        minimum_cohort=settings.effective_minimum,
        # As in the papers of the algorithms with a correction, whose sums go over devices.
        weighting=Weighting.EXAMPLES if demand.correction is Correction.NONE else Weighting.UNIFORM,
        task_id=task_id_of(run.run, run.round, assignment),
        model_hash=run.model_hash,
        graph_hash=run.graph_hash,
        layout_hash=run.layout_hash,
        base_weights_hash=row.base_weights_hash,
        seed=seed,
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
        codecs=tuple(SectionCodec(name, settings.codec, codec_seed(seed, name)) for name in demand.sections),
        # At least a second: 0 would say that there is no deadline.
        deadline_seconds=max(1.0, current.seconds_left(assignment, now)),
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
    task_id = session.scalar(_LATEST_FOLDED, {"device": device, "run": run.run})
    return task_id or ""
