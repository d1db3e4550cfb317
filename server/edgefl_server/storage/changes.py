"""Writes what decisions change to the rows that they concern and to no others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sqlalchemy import and_, bindparam, insert, literal, select, update
from sqlalchemy.exc import DatabaseError

from edgefl_server.aggregation import Assignment, AssignmentState, Change, FoldState, Standing, task_id_of
from edgefl_server.storage.clock import Moment
from edgefl_server.storage.cohorts import OPEN_IN_COHORT, Gathering, load_fold
from edgefl_server.storage.selecting import admission
from edgefl_server.storage.sessions import Session
from edgefl_server.storage.statements import Statement
from edgefl_server.storage.tables import Disposition, assignments, cohorts, folds, outcomes, runs

__all__ = ["apply", "finish_fold", "open_cohort", "stop_folds"]

_HAND_OUT = Statement(insert(assignments))
_CHANGING = ("state", "leased_until_clock", "leased_to_the_end", "ended_clock", "temporary")
_UPDATE = Statement(
    update(assignments)
    .where(assignments.c.task_id == bindparam("of"))
    .values({each: bindparam(each) for each in _CHANGING})
)
_RELEASE = Statement(update(assignments).where(OPEN_IN_COHORT).values(state=literal(AssignmentState.ABANDONED.value)))
_COUNTERS = ("started_clock", "open", "done", "failed_devices", "failed_attempts")
_COUNT = Statement(
    update(cohorts)
    .where(cohorts.c.run == bindparam("of"), cohorts.c.number == bindparam("of_cohort"))
    .values({each: bindparam(each) for each in _COUNTERS})
)
_NONE_OPEN = Statement(
    update(cohorts)
    .where(cohorts.c.run == bindparam("of"), cohorts.c.number == bindparam("of_cohort"))
    .values(open=literal(0))
)
_MOVE = Statement(
    update(folds)
    .where(folds.c.run == bindparam("of"), folds.c.number == bindparam("of_fold"))
    .values({each: bindparam(each) for each in ("state", "why", "enrolled", "ended_clock")})
)
_FINISHED = (
    *("state", "version", "why", "ended_clock"),
    *("num_examples", "devices", "bytes_up", "bytes_down", "metric_sums", "diagnostics", "findings"),
)
_FINISH = Statement(
    update(folds)
    .where(folds.c.run == bindparam("of"), folds.c.number == bindparam("of_number"))
    .values({each: bindparam(each) for each in _FINISHED})
)
_OF_RUN = runs.c.run == bindparam("of")
_OPEN_COHORT = Statement(insert(cohorts))
_OPEN_FOLD = Statement(insert(folds))
_NEXT_COHORT = Statement(select(runs.c.cohort + 1, runs.c.fold + 1, runs.c.version).where(_OF_RUN))
_ASK = Statement(update(runs).where(_OF_RUN).values(cohort=bindparam("cohort")))
_ASKED = Statement(select(runs.c.cohort).where(_OF_RUN))
_ACCEPT = Statement(update(runs).where(_OF_RUN).values(accepted=bindparam("accepted")))
_SERVE = Statement(update(runs).where(_OF_RUN).values(served=runs.c.served + literal(1)))
_WORK_FOR = Statement(update(runs).where(_OF_RUN).values(fold=bindparam("fold")))
_ACCEPTED = (
    outcomes.c.run == bindparam("of"),
    outcomes.c.fold == bindparam("of_number"),
    outcomes.c.disposition == literal(Disposition.ACCEPTED),
)
_KEEP = Statement(update(outcomes).where(*_ACCEPTED).values(disposition=literal(Disposition.FOLDED)))
_DISCARD = Statement(update(outcomes).where(*_ACCEPTED).values(disposition=literal(Disposition.DISCARDED)))
_NOT_OVER = and_(
    folds.c.run == bindparam("of"),
    folds.c.state != literal(FoldState.DONE.value),
    folds.c.state != literal(FoldState.FAILED.value),
)
_NUMBERS_NOT_OVER = Statement(select(folds.c.number).where(_NOT_OVER).order_by(folds.c.number))
_FAIL_ALL = Statement(
    update(folds)
    .where(_NOT_OVER)
    .values(state=FoldState.FAILED.value, why=bindparam("because"), ended_clock=bindparam("now"))
)


def apply(session: Session, of: Gathering, change: Change, now: Moment, continues: str = "") -> None:
    """Writes what a decision changes, and discards the outcomes of a fold that failed.

    That a fold is done is not for this function: it comes with new weights. A task that is handed out `continues` the
    device's latest accepted one of the run.
    """
    before, after = of.standing, change.standing
    if change.assigned is not None:
        new = change.assigned
        fixed = {
            "run": of.run,
            "cohort": of.cohort,
            "version": new.version,
            "fold": of.fold,
            "device": new.device,
            "attempt": new.attempt,
            "turn": new.turn,
            "continues": continues,
            "assigned_clock": new.assigned_at,
            "ends_clock": new.ends_at,
            "failed_before": new.failed_before,
        }
        session.execute(_SERVE, {"of": of.run})
        session.execute(_HAND_OUT, {"task_id": task_id_of(of.run, of.cohort, new), **fixed, **_changing(new)})
    for each in change.changed:
        session.execute(_UPDATE, {"of": task_id_of(of.run, of.cohort, each), **_changing(each)})
    if of.latest:  # else the cohort has gone on meanwhile: its tasks and what it counts are of another fold
        if change.released:
            session.execute(_RELEASE, {"of_run": of.run, "of_cohort": of.cohort})
        counters = _counters(change.following or after)
        if counters != _counters(before):
            session.execute(_COUNT, {"of": of.run, "of_cohort": of.cohort, **counters})
        if after.accepted != before.accepted:
            session.execute(_ACCEPT, {"of": of.run, "accepted": after.accepted})
    if (after.state, after.why) != (before.state, before.why):
        failed = after.state is FoldState.FAILED
        session.execute(
            _MOVE,
            {
                "of": of.run,
                "of_fold": of.fold,
                "state": after.state.value,
                "why": after.why,
                # From now on: folding again after a crash gives the same, whoever enrols meanwhile.
                "enrolled": after.enrolled if after.state is FoldState.FOLDING else 0,
                "ended_clock": now.clock if failed else None,
            },
        )
        if failed:
            session.execute(_DISCARD, {"of": of.run, "of_number": of.fold})
    if change.following is not None:
        _open_fold(session, of.run, of.fold + 1, of.version, change.following.state, now)


def open_cohort(session: Session, run_id: str, now: Moment) -> None:
    """Opens the next cohort of a run, with a fold of its own."""
    number, fold, version = session.execute(_NEXT_COHORT, {"of": run_id}).one()
    counters = {**dict.fromkeys(_COUNTERS, 0), "started_clock": None}
    admits = admission(session, run_id, number)
    row = {"run": run_id, "number": number, "opened_clock": now.clock, "admits": admits, **counters}
    session.execute(_OPEN_COHORT, row)
    session.execute(_ASK, {"of": run_id, "cohort": number})
    _open_fold(session, run_id, fold, version, FoldState.SELECTING, now)


def finish_fold(session: Session, of: Gathering, after: Standing, figures: Mapping[str, object], now: Moment) -> None:
    """Says that a fold, and what was accepted for it, is part of the weights.

    Args:
        session: that writes.
        of: the fold, and the version of the weights that it was merged into.
        after: as the schedule says that it stands.
        figures: its ``num_examples``, ``devices``, ``bytes_up``, ``bytes_down``, ``metric_sums``, ``diagnostics`` and
            ``findings``.
        now: the time.
    """
    keys = {"of": of.run, "of_number": of.fold}
    said = {"state": after.state.value, "version": of.version, "why": after.why, "ended_clock": now.clock}
    session.execute(_FINISH, {**keys, **said, **figures})
    session.execute(_KEEP, keys)


def stop_folds(session: Session, run_id: str, why: str, now: Moment) -> int:
    """Ends all that a run works for, as its schedule says; of a run that cannot be read, whatever is not over.

    Returns:
        How many folds that are.
    """
    numbers = [number for (number,) in session.execute(_NUMBERS_NOT_OVER, {"of": run_id})]
    try:
        standing = [load_fold(session, run_id, number) for number in numbers]
        changes = [(of, of.schedule.stop(of.standing, why)) for of in standing]
    except DatabaseError:
        raise
    except Exception:
        _end_unreadable(session, run_id, numbers, why, now)
        return len(numbers)
    for of, change in changes:
        if change is not None:
            apply(session, of, change, now)
    return len(numbers)


def _end_unreadable(session: Session, run_id: str, numbers: Sequence[int], why: str, now: Moment) -> None:
    """Ends a fold of a run without a schedule: there is nobody to ask, and an operator must be able to end any run."""
    session.execute(_FAIL_ALL, {"of": run_id, "because": why, "now": now.clock})
    for number in numbers:
        session.execute(_DISCARD, {"of": run_id, "of_number": number})
    asked = session.scalar(_ASKED, {"of": run_id})
    session.execute(_RELEASE, {"of_run": run_id, "of_cohort": asked})
    session.execute(_NONE_OPEN, {"of": run_id, "of_cohort": asked})


def _open_fold(session: Session, run_id: str, number: int, version: int, state: FoldState, now: Moment) -> None:
    session.execute(
        _OPEN_FOLD,
        {
            "run": run_id,
            "number": number,
            "version": version,
            "state": state.value,
            "why": "",
            "enrolled": 0,
            "opened_at": now.date,
            "opened_clock": now.clock,
            "metric_sums": {},
            "diagnostics": {},
            "findings": {},
            "pruned": {},
        },
    )
    session.execute(_WORK_FOR, {"of": run_id, "fold": number})


def _changing(task: Assignment) -> dict[str, object]:
    return {
        "state": task.state.value,
        "leased_until_clock": task.leased_until,
        "leased_to_the_end": task.leased_to_the_end,
        "ended_clock": task.ended_at,
        "temporary": task.temporary,
    }


def _counters(standing: Standing) -> dict[str, object]:
    return {
        "started_clock": standing.started_at,
        "open": standing.open,
        "done": standing.done,
        "failed_devices": standing.failed_devices,
        "failed_attempts": standing.failed_attempts,
    }
