"""Tasks: which work a device gets, whether it is still wanted, what it may fetch."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace

from sqlalchemy import Text, and_, bindparam, cast, func, literal, or_, select, union_all
from sqlalchemy.exc import DatabaseError

from edgefl.capabilities import lacks
from edgefl.errors import RunError
from edgefl.wire.messages import ExtraVector, Task
from edgefl_server.aggregation import (
    AssignmentState,
    Blob,
    Change,
    Concerned,
    TaskSource,
    named_vectors,
    task_for,
    task_id_of,
)
from edgefl_server.storage.changes import apply
from edgefl_server.storage.cohorts import (
    STANDING,
    Gathering,
    concerned_by_a_call_for_work,
    demand_of,
    gathering_of,
    limits_of,
    places,
    slots_of,
    with_standing,
)
from edgefl_server.storage.found_tasks import find_task, has_open_task, reading
from edgefl_server.storage.selecting import device_key
from edgefl_server.storage.sessions import Session
from edgefl_server.storage.state import ServerState
from edgefl_server.storage.statements import Row, Statement
from edgefl_server.storage.tables import DeviceRow, Disposition, RunState, assignments, outcomes, runs, versions

__all__ = [
    "Found",
    "devices_with_tasks",
    "ended_runs",
    "fetching_run",
    "look_for_tasks",
    "next_task",
    "renew_lease",
    "work_for",
]

_HAND_OUT, _TO_ALL, _READ = "hand out tasks", "hand out tasks to every device", "read the round"
_SLOTS = cast(versions.c.slots, Text).label("slots_text")
_GOES_ON = or_(*(runs.c.state == literal(each) for each in RunState.GOING_ON))
_ACTIVE = Statement(
    with_standing(
        select(
            *STANDING,
            runs.c.state.label("run_state"),
            runs.c.population,
            runs.c.model_hash,
            runs.c.graph_hash,
            runs.c.layout_hash,
            versions.c.number,
            versions.c.weights_hash,
            _SLOTS,
            cast(runs.c.limits, Text).label("limits_text"),
        ).select_from(runs)
    )
    .outerjoin(versions, and_(versions.c.run == runs.c.run, versions.c.number == runs.c.version))
    .where(runs.c.population == bindparam("population"), _GOES_ON)
    # Evaluations first, which are short: where all devices are wanted for training, none would ever come to them. Then
    # the least served: runs share the devices of a population.
    .order_by(runs.c.evaluates == literal(""), runs.c.served, runs.c.created_clock, runs.c.run)
)
_ACTIVE_RUNS = Statement(
    # What devices remember of a run is needed until its last version is evaluated.
    select(runs.c.run, runs.c.evaluates).where(runs.c.population == bindparam("population"), _GOES_ON)
)
_VERSION = Statement(
    select(versions.c.number, versions.c.weights_hash, _SLOTS).where(
        versions.c.run == bindparam("run"), versions.c.number == bindparam("number")
    )
)
_FETCHABLE = Statement(
    select(
        runs.c.run,
        runs.c.model_hash,
        cast(runs.c.settings, Text).label("settings_text"),
        versions.c.weights_hash,
        _SLOTS,
    )
    .select_from(assignments)
    .join(runs, runs.c.run == assignments.c.run)
    .join(versions, and_(versions.c.run == assignments.c.run, versions.c.number == assignments.c.version))
    .where(assignments.c.device == bindparam("device"), assignments.c.state == AssignmentState.OPEN.value)
    .distinct()
)
_OF_DEVICE = and_(assignments.c.device == bindparam("device"), assignments.c.run == bindparam("run"))
_OUT_OF_TIME = and_(_OF_DEVICE, assignments.c.state == AssignmentState.OUT_OF_TIME.value)
_ABOUT_DEVICE = Statement(
    select(
        select(func.count()).where(_OUT_OF_TIME).scalar_subquery().label("times"),
        select(func.max(assignments.c.ended_clock)).where(_OUT_OF_TIME).scalar_subquery().label("latest"),
    )
)
"""Says how often a task of the device was out of time in a run, and when last."""
_ACCEPTED = (
    select(outcomes.c.task_id, outcomes.c.accepted)
    .where(outcomes.c.device == bindparam("device"), outcomes.c.run == bindparam("run"))
    .order_by(outcomes.c.accepted.desc())
)
_COUNTING = Statement(
    union_all(
        select(_ACCEPTED.where(outcomes.c.disposition == Disposition.ACCEPTED).subquery()),
        select(_ACCEPTED.where(outcomes.c.disposition == Disposition.FOLDED).limit(1).subquery()),
    )
)
"""Finds the tasks of a device in a run that come to count, as far as is known now, and the latest of those that do."""
_CONTINUES = Statement(select(assignments.c.continues).where(assignments.c.task_id == bindparam("task_id")))


@dataclass(frozen=True)
class Found:
    """The answer to a device that asks for work.

    Attributes:
        task: its open task, else a new one; None: there is none that it could be given now.
        has_task: it has an open task; without `task`, of a run that cannot be read now.
    """

    task: Task | None
    has_task: bool


def next_task(state: ServerState, device: DeviceRow) -> Task | None:
    """The task that `look_for_tasks` finds for a single device."""
    (found,) = look_for_tasks(state, [device])
    return found.task


def look_for_tasks(state: ServerState, devices: Sequence[DeviceRow]) -> list[Found]:
    """For each device, one after the other, its open task, else a new one, else None; all in one transaction.

    A run with which this is not possible is passed over, and so is one whose task the device cannot do.
    """
    found = dict[int, Found]()
    with state.database.read() as session:
        # Many find nothing, since they have done their part or pause; they must not queue up for the writer.
        for place, device in enumerate(devices):
            if next(_offers(state, session, device, state.clock()), None) is None:
                found[place] = Found(None, has_open_task(session, device.device))
    if len(found) < len(devices):
        with state.database.write() as session:
            for place, device in enumerate(devices):
                if place not in found:
                    found[place] = _hand_out(state, session, device)
    return [found[place] for place in range(len(devices))]


def _hand_out(state: ServerState, session: Session, device: DeviceRow) -> Found:
    now = state.now()
    if state.barring.why(device.device) is not None:  # since it asked
        return Found(None, False)
    for offer in _offers(state, session, device, now.clock):
        # Since it asked it may have sent all that it may. A task that it has would come first.
        if offer.change.assigned is not None and state.barring.seconds_left(device.device, now.date, session) > 0:
            break
        try:
            task = _task(state, session, offer, now.clock)
            why = _lacks(session, device, limits_of(offer.run.limits_text).target, task)
        except DatabaseError:
            raise
        except Exception as error:
            state.troubles.note(offer.of.run, _HAND_OUT, error, now.clock)
            continue
        state.troubles.clear(offer.of.run, _HAND_OUT)
        if why is not None:
            state.troubles.note(offer.of.run, _TO_ALL, RunError(f"device {device.device[:8]} {why}"), now.clock)
            continue
        apply(session, offer.of, offer.change, now, offer.continues)
        return Found(task, True)
    return Found(None, has_open_task(session, device.device))


def _lacks(session: Session, device: DeviceRow, target: str, task: Task) -> str | None:
    """Says what the device lacks to do the task with a model file for a target; None: nothing."""
    why = lacks(device.capabilities, task, target)
    if why is None:
        return None
    # The row may have been read long ago, and the device have enrolled again since.
    latest = session.scalar(select(DeviceRow.capabilities).where(DeviceRow.device == device.device))
    return lacks(latest or {}, task, target)


def devices_with_tasks(state: ServerState) -> list[str]:
    """The devices that have an open task of any run."""
    with state.database.read() as session:
        open_ones = select(assignments.c.device).where(assignments.c.state == AssignmentState.OPEN.value)
        return list(session.scalars(open_ones.distinct()))


def ended_runs(state: ServerState, population: str, remembered: Collection[str]) -> list[str]:
    """Finds those of the runs that are over, or that the population never had: no task of them will come any more."""
    if not remembered:
        return []
    with state.database.read() as session:
        active = {name for row in session.execute(_ACTIVE_RUNS, {"population": population}) for name in row}
    return [run for run in remembered if run not in active]


def work_for(state: ServerState, population: str) -> tuple[int, int, frozenset[str]]:
    """Counts the tasks that the runs of a population could hand out now, and its runs that are not over.

    Returns:
        Both numbers, and the root devices of the runs, for which there may be a task beside those counted.
    """
    free = active = 0
    roots = set[str]()
    with state.database.read() as session:
        now = state.clock()
        rows = session.execute(_ACTIVE, {"population": population}).all()
        paused = _paused(rows)
        for row in rows:
            active += 1
            if row.run in paused:
                continue
            try:
                of = gathering_of(row)
                free += places(session, of, now)
                roots |= {of.root} - {""}
            except DatabaseError:
                raise
            except Exception as error:
                state.troubles.note(row.run, _READ, error, now)
            else:
                state.troubles.clear(row.run, _READ)
    return free, active, frozenset(roots)


def renew_lease(state: ServerState, device: str, task_id: str) -> float | None:
    """Says that a device still works on a task.

    Returns:
        The seconds of the new lease, fewer where the task's longest time ends before; None when the task is not wanted
        any more.

    Raises:
        UnknownTaskError: the device has no such task.
    """

    def renew(session: Session) -> float | None:
        task = find_task(session, device, task_id, state.clock())
        if not task.is_wanted:
            return None
        of, now = task.gathering, state.now()
        with reading(of.run):
            schedule = of.schedule
        change = schedule.renew(of.standing, task.assignment, now.clock)
        if change is None:
            return None
        apply(session, of, change, now)
        (renewed,) = change.changed
        return max(1.0, renewed.leased_until - now.clock)

    return state.database.write_together(renew)


def fetching_run(state: ServerState, device: str, digest: str) -> str | None:
    """The run of an open task of the device that names this model, these weights or this vector; None: none does."""
    with state.database.read() as session:
        named = session.execute(_FETCHABLE, {"device": device}).all()
    for each in named:
        if digest in (each.model_hash, each.weights_hash):
            return str(each.run)
    for each in named:
        try:
            vectors = named_vectors(demand_of(each.settings_text), slots_of(each.slots_text))
        except Exception as error:
            state.troubles.note(each.run, _READ, error, state.clock())
            continue
        if digest in vectors.values():
            return str(each.run)
    return None


@dataclass(frozen=True)
class _Offer:
    """Work for a device: the run with its newest version, what handing it out changes, and the device's past in it."""

    run: Row
    of: Gathering
    change: Change
    continues: str
    outstanding: tuple[str, ...]


def _offers(state: ServerState, session: Session, device: DeviceRow, now: float) -> Iterator[_Offer]:
    """The runs that have work for the device; an open task of any run comes first."""
    able: list[tuple[Row, Gathering, Concerned]] = []
    rows = session.execute(_ACTIVE, {"population": device.population}).all()
    paused = _paused(rows)
    for row in rows:
        try:
            of = gathering_of(row)
            if not of.standing.state.takes_outcomes:
                continue
            concerned = concerned_by_a_call_for_work(session, of, device.device, now)
            renewed = of.schedule.renew(of.standing, concerned.mine, now)
        except DatabaseError:
            raise
        except Exception as error:
            state.troubles.note(row.run, _READ, error, now)
            continue
        state.troubles.clear(row.run, _READ)
        able.append((row, of, concerned))
        if renewed is not None:
            open_task = task_id_of(of.run, of.cohort, renewed.changed[0])
            # As when it was handed out, whatever was accepted or discarded since: the same task, the same outcome.
            continues = session.scalar(_CONTINUES, {"task_id": open_task})
            counting = _counting(session, device, of)
            yield _Offer(row, of, renewed, continues, tuple(each for each in counting if each != continues))
    for row, of, concerned in able:
        if row.run in paused:
            continue
        try:
            if of.standing.admission is not None and concerned.mine is None:
                concerned = replace(concerned, key=device_key(session, of, device))
            assigned = of.schedule.assign(of.standing, concerned, device.device, now)
            if assigned is None:
                continue
            past = session.execute(_ABOUT_DEVICE, {"device": device.device, "run": of.run}).one()
            if past.times and now < past.latest + of.schedule.rest_seconds(past.times):
                continue
        except DatabaseError:
            raise
        except Exception as error:
            state.troubles.note(row.run, _HAND_OUT, error, now)
            continue
        counting = _counting(session, device, of)
        yield _Offer(row, of, assigned, counting[0] if counting else "", tuple(counting[1:]))


def _paused(rows: Sequence[Row]) -> set[str]:
    """The runs that pause, and those that evaluate their versions."""
    paused = {row.run for row in rows if row.run_state == RunState.PAUSED}
    return paused | {row.run for row in rows if row.evaluates in paused}


def _counting(session: Session, device: DeviceRow, of: Gathering) -> list[str]:
    """The tasks of a device that it may be asked to go on from, newest first; none where no device keeps anything."""
    if not (of.evaluates or of.settings.makes_weights):
        return []
    found = session.execute(_COUNTING, {"device": device.device, "run": of.remembered_as}).all()
    return [each.task_id for each in sorted(found, key=lambda each: each.accepted, reverse=True)]


def _task(state: ServerState, session: Session, offer: _Offer, now: float) -> Task:
    run, of, change = offer.run, offer.of, offer.change
    assignment = change.assigned or change.changed[0]
    version: Row = run
    if assignment.version != run.number:  # it began before there was the newest version
        version = session.execute(_VERSION, {"run": of.run, "number": assignment.version}).one()
    settings, demand = of.settings, demand_of(of.settings_text)
    vectors = named_vectors(demand, slots_of(version.slots_text))
    source = TaskSource(
        run.population,
        of.remembered_as,
        version.number,
        of.cohort,
        of.fold,
        Blob(run.model_hash, state.models.size(run.model_hash)),
        run.graph_hash,
        run.layout_hash,
        Blob(version.weights_hash, state.weights.size(version.weights_hash)),
        tuple(ExtraVector(name, digest, state.weights.size(digest)) for name, digest in vectors.items()),
        of.run,
    )
    left = of.schedule.seconds_left(change.standing, assignment, now)
    return task_for(source, settings, demand, assignment, left, offer.continues, offer.outstanding)
