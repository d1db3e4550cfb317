"""Reads what a schedule is told of a cohort and its fold: counters, and the few tasks that a decision concerns.

Every call of a device comes through here: the statements are made once, and name columns instead of objects.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

from sqlalchemy import (
    Text,
    and_,
    bindparam,
    case,
    cast,
    false,
    func,
    literal,
    select,
    true,
    union_all,
)

from edgefl_server.aggregation import (
    Admission,
    Assignment,
    AssignmentState,
    Concerned,
    Demand,
    FoldState,
    ModelLimits,
    RunSettings,
    Schedule,
    Standing,
    demand_for,
    root_device_of,
    schedule_for,
)
from edgefl_server.storage.sessions import Session
from edgefl_server.storage.statements import Row, Statement
from edgefl_server.storage.tables import Disposition, assignments, cohorts, folds, outcomes, populations, runs

__all__ = [
    "OPEN_IN_COHORT",
    "STANDING",
    "TASK",
    "Gathering",
    "assignment_of",
    "concerned_by_a_call_for_work",
    "concerned_by_time",
    "demand_of",
    "gathering_of",
    "limits_of",
    "load_fold",
    "load_gathering",
    "places",
    "settings_of",
    "slots_of",
    "with_standing",
]


@dataclass(frozen=True)
class Gathering:
    """A run's latest cohort and fold, or an earlier fold that is not over, and how they stand.

    Attributes:
        run: the run's id.
        cohort: the number of the cohort.
        fold: the number of the fold.
        version: the newest version of the weights.
        weight_size: elements of the layout's weight section.
        settings_text: the run's settings as they are kept.
        standing: of cohort and fold.
        latest: the cohort works for the fold; else it works for a later one, while this one is merged.
        evaluates: the run of which it evaluates a version; empty: none.
    """

    run: str
    cohort: int
    fold: int
    version: int
    weight_size: int
    settings_text: str
    standing: Standing
    latest: bool = True
    evaluates: str = ""

    @property
    def remembered_as(self) -> str:
        """The run as devices know it, and remember it: the one that is evaluated."""
        return self.evaluates or self.run

    @property
    def settings(self) -> RunSettings:
        """The run's settings; raises what `settings_of` does."""
        return settings_of(self.settings_text)

    @property
    def schedule(self) -> Schedule:
        """The run's schedule; raises what `settings_of` does."""
        return _schedule(self.settings_text)

    @property
    def root(self) -> str:
        """The id of the run's root device; empty: it has none. Raises what `settings_of` does."""
        return root_device_of(self.settings)


@lru_cache(maxsize=256)
def settings_of(text: str) -> RunSettings:
    """Settings as they are kept, read once.

    Raises:
        ValueError, TypeError, EdgeflError: this version cannot read them.
    """
    return RunSettings.from_json(json.loads(text))


@lru_cache(maxsize=256)
def demand_of(text: str) -> Demand:
    """Says what a run asks of devices, from its settings as they are kept."""
    return demand_for(settings_of(text))


@lru_cache(maxsize=256)
def limits_of(text: str) -> ModelLimits:
    """The limits of a run's model, as they are kept."""
    return ModelLimits.from_json(json.loads(text))


@lru_cache(maxsize=256)
def _schedule(text: str) -> Schedule:
    return schedule_for(settings_of(text))


@lru_cache(maxsize=256)
def _admission(text: str, settings: str) -> Admission | None:
    return Admission.from_json(json.loads(text), settings_of(settings).selection_window)


def slots_of(text: str) -> Mapping[str, str]:
    """The slots of a version as they are kept."""
    found: dict[str, str] = json.loads(text)
    return found


_task = assignments.c
TASK = (
    _task.device,
    _task.attempt,
    _task.assigned_clock,
    _task.ends_clock,
    _task.leased_until_clock,
    _task.state,
    _task.ended_clock,
    _task.temporary,
    _task.failed_before,
    _task.version.label("task_version"),
    _task.turn,
)
"""Columns from which `assignment_of` makes a task."""
STANDING = (
    runs.c.run,
    runs.c.cohort,
    runs.c.fold,
    runs.c.version,
    runs.c.accepted,
    runs.c.weight_size,
    runs.c.evaluates,
    # As text, read when it is needed: one run whose settings are no JSON spoils no query.
    cast(runs.c.settings, Text).label("settings_text"),
    folds.c.state.label("fold_state"),
    folds.c.why.label("fold_why"),
    cohorts.c.opened_clock,
    cohorts.c.started_clock,
    cohorts.c.open,
    cohorts.c.done,
    cohorts.c.failed_devices,
    cohorts.c.failed_attempts,
    cast(cohorts.c.admits, Text).label("admits_text"),
    func.coalesce(populations.c.devices, 0).label("enrolled"),
)
"""Columns from which `gathering_of` makes what a run works for; `joined` says from which tables."""
_FOLD_STATES = {state.value: state for state in FoldState}
_TASK_STATES = {state.value: state for state in AssignmentState}
_MINE, _OVERDUE, _LATE = 0, 1, 2
_ALL = ("{}", None)
"""A cohort that admits all, or is none."""


def with_standing(statement: Any) -> Any:
    """Joins a statement that selects from runs with what the columns of `STANDING` need."""
    return (
        statement.outerjoin(cohorts, and_(cohorts.c.run == runs.c.run, cohorts.c.number == runs.c.cohort))
        .outerjoin(folds, and_(folds.c.run == runs.c.run, folds.c.number == runs.c.fold))
        .outerjoin(populations, populations.c.population == runs.c.population)
    )


_OF_RUN = Statement(with_standing(select(*STANDING).select_from(runs)).where(runs.c.run == bindparam("run")))
_FOLD = Statement(
    select(
        folds.c.state,
        folds.c.why,
        folds.c.enrolled,
        select(func.count())
        .where(
            outcomes.c.run == folds.c.run,
            outcomes.c.fold == folds.c.number,
            outcomes.c.disposition == Disposition.ACCEPTED,
        )
        .correlate(folds)
        .scalar_subquery()
        .label("done"),
    ).where(folds.c.run == bindparam("run"), folds.c.number == bindparam("fold"))
)
OPEN_IN_COHORT = and_(
    _task.run == bindparam("of_run"),
    _task.cohort == bindparam("of_cohort"),
    _task.state == literal(AssignmentState.OPEN.value),
)
_OF_FLEET = _task.device != bindparam("root")  # whose place nobody takes
_IS_OVERDUE = and_(
    OPEN_IN_COHORT, _task.leased_to_the_end == true(), _task.leased_until_clock <= bindparam("now"), _OF_FLEET
)
_IS_LATE = and_(
    OPEN_IN_COHORT, _task.leased_to_the_end == false(), _task.leased_until_clock < bindparam("now"), _OF_FLEET
)
_IN_NONE = literal(0).label("in_fold")
_OVERDUE_TASKS = select(literal(_OVERDUE).label("role"), _IN_NONE, *TASK).where(_IS_OVERDUE)
_ALL_OVERDUE = Statement(_OVERDUE_TASKS)
_LATEST_OF_DEVICE = (
    select(
        literal(_MINE).label("role"),
        case((outcomes.c.disposition == literal(Disposition.ACCEPTED), outcomes.c.fold), else_=literal(0)).label(
            "in_fold"
        ),
        *TASK,
    )
    .outerjoin(outcomes, outcomes.c.task_id == _task.task_id)
    .where(
        _task.device == bindparam("device"), _task.run == bindparam("of_run"), _task.cohort == bindparam("of_cohort")
    )
    .order_by(_task.attempt.desc())
    .limit(1)
    .subquery()
)
_LONGEST_LATE = (
    select(literal(_LATE).label("role"), _IN_NONE, *TASK)
    .where(_IS_LATE)
    .order_by(_task.leased_until_clock, _task.device)
    .limit(1)
    .subquery()
)
_LATEST_OF_ROOT = Statement(select(_LATEST_OF_DEVICE))
_CONCERNED = Statement(union_all(select(_LATEST_OF_DEVICE), _OVERDUE_TASKS, select(_LONGEST_LATE)))
_COUNTS = Statement(
    select(
        select(func.count()).select_from(assignments).where(_IS_OVERDUE).scalar_subquery(),
        select(func.count()).select_from(assignments).where(_IS_LATE).scalar_subquery(),
    )
)


def gathering_of(row: Row) -> Gathering:
    """Says what a run works for, from the columns of `STANDING`.

    Raises:
        ValueError: there is no such cohort or fold, or its state is none.
    """
    state = _FOLD_STATES.get(row.fold_state)
    if state is None or row.opened_clock is None:
        raise ValueError(f"cohort {row.cohort} or fold {row.fold} cannot be read")
    standing = Standing(
        state=state,
        opened_at=row.opened_clock,
        started_at=row.started_clock,
        open=row.open,
        done=row.done,
        failed_devices=row.failed_devices,
        failed_attempts=row.failed_attempts,
        enrolled=row.enrolled,
        why=row.fold_why,
        version=row.version,
        accepted=row.accepted,
        admission=None if row.admits_text in _ALL else _admission(row.admits_text, row.settings_text),
    )
    return Gathering(
        row.run,
        row.cohort,
        row.fold,
        row.version,
        row.weight_size,
        row.settings_text,
        standing,
        evaluates=row.evaluates,
    )


def load_gathering(session: Session, run: str) -> Gathering:
    """Reads what a run works for."""
    return gathering_of(session.execute(_OF_RUN, {"run": run}).one())


def load_fold(session: Session, run: str, number: int) -> Gathering:
    """Reads what a run works for, or how a fold stands that it does not work for any more."""
    of = load_gathering(session, run)
    if of.fold == number:
        return of
    row = session.execute(_FOLD, {"run": run, "fold": number}).one()
    return replace(
        of,
        fold=number,
        latest=False,
        standing=Standing(
            FoldState(row.state),
            done=row.done,
            enrolled=row.enrolled,
            why=row.why,
            version=of.version,
            accepted=of.standing.accepted,
        ),
    )


def assignment_of(row: Row) -> Assignment:
    """A task, from the columns of `TASK`."""
    return Assignment(
        row.device,
        row.attempt,
        row.assigned_clock,
        row.ends_clock,
        row.leased_until_clock,
        _TASK_STATES[row.state],
        row.ended_clock,
        row.temporary,
        row.failed_before,
        row.task_version,
        row.turn,
    )


def concerned_by_a_call_for_work(session: Session, of: Gathering, device: str, now: float) -> Concerned:
    """The tasks that handing one to a device concerns."""
    keys = {**_keys(of, now), "device": device}
    found: tuple[list[Assignment], ...] = ([], [], [])
    counted = False
    for row in session.execute(_CONCERNED, keys):
        found[row.role].append(assignment_of(row))
        counted |= row.in_fold == of.fold
    mine, overdue, late = found
    return Concerned(mine[0] if mine else None, tuple(overdue), late[0] if late else None, counted=counted)


def concerned_by_time(session: Session, of: Gathering, now: float, mine: Assignment | None = None) -> Concerned:
    """The tasks that are over as time goes by, beside one that is being settled."""
    overdue = tuple(map(assignment_of, session.execute(_ALL_OVERDUE, _keys(of, now))))
    root = None
    if of.root:
        row = session.execute(_LATEST_OF_ROOT, {**_keys(of, now), "device": of.root}).one_or_none()
        root = None if row is None else assignment_of(row)
    return Concerned(mine, overdue, root=root)


def places(session: Session, of: Gathering, now: float) -> int:
    """The number of tasks that could be handed out now."""
    overdue, late = session.execute(_COUNTS, _keys(of, now)).one()
    return of.schedule.places(of.standing, overdue, late)


def _keys(of: Gathering, now: float) -> dict[str, object]:
    return {"of_run": of.run, "of_cohort": of.cohort, "root": of.root, "now": now}
