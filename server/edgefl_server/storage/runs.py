"""Runs: list, stop, what comes next in them."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping
from itertools import takewhile

from sqlalchemy import ColumnElement, bindparam, func, insert, select, update
from sqlalchemy.exc import DatabaseError

from edgefl.errors import RunError
from edgefl.manifest import Metric
from edgefl.model_file import ModelFile
from edgefl.wire.messages import Correction
from edgefl_server.aggregation import (
    FAILED_FOLDS_IN_A_ROW,
    FoldState,
    Next,
    Progress,
    RunSettings,
    after_failure,
    strategy_for,
)
from edgefl_server.storage.changes import open_cohort, stop_folds
from edgefl_server.storage.clock import Moment
from edgefl_server.storage.evaluations import evaluate_due, evaluated_by, rest, stop_evaluation
from edgefl_server.storage.sessions import Session
from edgefl_server.storage.state import ServerState
from edgefl_server.storage.statements import Statement
from edgefl_server.storage.tables import FolderRow, RunRow, RunState, folds, runs, table, versions

__all__ = [
    "NameTakenError",
    "RunStateError",
    "add_version",
    "after_failed_fold",
    "end_run",
    "find_run",
    "get_run",
    "kept_by_devices",
    "least_served",
    "metrics_of",
    "move_on",
    "readable_runs",
    "stop_run",
]

_log = logging.getLogger(__name__)

_ADD_VERSION = Statement(insert(versions))
_START_FROM = Statement(update(runs).where(runs.c.run == bindparam("of")).values(version=bindparam("version")))
_END = Statement(
    update(runs)
    .where(runs.c.run == bindparam("of"))
    .values(state=bindparam("state"), why=bindparam("why"), ended_at=bindparam("ended_at"))
)
_folder = table(FolderRow)
_COUNT = Statement(update(_folder).values(generation=_folder.c.generation + 1))


class NameTakenError(RunError):
    """An active run has the name, or any run has it as its id."""


class RunStateError(RunError):
    """A run is not in the state in which what is wanted could be done."""


def least_served(session: Session, population: str) -> int:
    """The share at which a run begins: what the least served one has, so that it takes over nothing of the past."""
    share = select(func.min(RunRow.served)).where(RunRow.population == population, RunRow.evaluates == "")
    return session.scalar(share.where(RunRow.state == RunState.ACTIVE)) or 0


def add_version(
    session: Session,
    run_id: str,
    number: int,
    fold: int,
    weights_hash: str,
    slots: Mapping[str, str],
    now: Moment,
    parent: int | None = None,
) -> None:
    """Makes weights the newest version of a run, from which tasks start.

    Args:
        session: that writes.
        run_id: the run.
        number: of the version.
        fold: that made it; 0: none.
        weights_hash: of the weights.
        slots: the strategy's, as hashes.
        now: the time.
        parent: the version that it came from; None: none.
    """
    came = {"parent": parent, "made_at": now.date}
    row = {"run": run_id, "number": number, "fold": fold, "weights_hash": weights_hash, "slots": dict(slots), **came}
    session.execute(_ADD_VERSION, row)
    session.execute(_START_FROM, {"of": run_id, "version": number})


def move_on(session: Session, run_id: str, progress: Progress, now: Moment) -> None:
    """Does what comes next in a run: opens its next cohort, or ends it; and evaluates what is due."""
    _count(session)
    if evaluated := evaluated_by(session, run_id):
        rest(session, run_id)
        evaluate_due(session, evaluated, now)
        return
    if progress.next is Next.COHORT:
        open_cohort(session, run_id, now)
    elif progress.next is not Next.GATHERING:
        outcome = RunState.DONE if progress.next is Next.DONE else RunState.FAILED
        # What is gathered for one more fold is not needed.
        stop_folds(session, run_id, "the run has as many rounds as it was to have", now)
        session.execute(_END, {"of": run_id, "state": outcome, "why": progress.why[:500], "ended_at": now.date})
    evaluate_due(session, run_id, now)


def after_failed_fold(session: Session, run_id: str, number: int, rounds: int, now: Moment) -> None:
    """Goes on after a fold of a run failed."""
    fold = folds.c
    # Those that a rollback ended, which is what the newest version then comes from, did not fail.
    newest = select(RunRow.version).where(RunRow.run == run_id).scalar_subquery()
    since = select(versions.c.fold).where(versions.c.run == run_id, versions.c.number == newest).scalar_subquery()
    latest = session.execute(
        select(fold.state, fold.why)
        .where(fold.run == run_id, fold.number <= number, fold.number > since)
        .order_by(fold.number.desc())
        .limit(FAILED_FOLDS_IN_A_ROW)
    ).all()
    why = latest[0].why
    _log.warning("run %s: round %d failed: %s", run_id, number, why)
    failed = len(list(takewhile(lambda each: each.state == FoldState.FAILED.value, latest)))
    done = select(fold.number).where(fold.run == run_id, fold.state == FoldState.DONE.value).limit(1)
    any_done = session.scalar(done) is not None
    gathering = session.scalar(select(RunRow.fold).where(RunRow.run == run_id)) != number
    progress = after_failure(number, why, rounds, failed_in_a_row=failed, any_done=any_done, gathering=gathering)
    move_on(session, run_id, progress, now)


def stop_run(state: ServerState, run_id: str, why: str = "stopped by the operator") -> bool:
    """Ends a run now; what its open round has accepted is discarded.

    Returns:
        False when the run had ended before.

    Raises:
        RunError: there is no such run.
    """
    with state.database.write() as session:
        found = find_run(session, run_id)
        ended = end_run(session, found, RunState.STOPPED, why, state.now())
    if ended:
        state.keep_generation()
        state.troubles.drop(found)
    return ended


def end_run(session: Session, run_id: str, outcome: str, why: str, now: Moment) -> bool:
    """Ends an active run, also one whose settings or open round cannot be read any more.

    Args:
        session: that writes.
        run_id: its id.
        outcome: STOPPED or FAILED.
        why: for operators.
        now: the time.

    Returns:
        False when the run and its evaluation had ended before.
    """
    why = why[:500]
    evaluation = stop_evaluation(session, run_id, why, now)  # that of the last version may go on after the run
    if session.scalar(select(RunRow.state).where(RunRow.run == run_id)) not in RunState.GOING_ON:
        return evaluation
    _count(session)
    stop_folds(session, run_id, why, now)
    session.execute(_END, {"of": run_id, "state": outcome, "why": why, "ended_at": now.date})
    return True


def _count(session: Session) -> None:
    """Counts a step that nobody may undo; `ServerState.keep_generation` follows once it is committed."""
    session.execute(_COUNT)


def find_run(session: Session, run_id: str) -> str:
    """The id of a run that is given by its id, or by its name: the active one's, else that of the only one that had it.

    Raises:
        RunError: there is none, or several had the name.
    """
    if session.scalar(select(RunRow.run).where(RunRow.run == run_id)) is not None:
        return run_id
    named = session.execute(select(RunRow.run, RunRow.state).where(RunRow.name == run_id)).all()
    chosen = [run for run, state in named if state in RunState.GOING_ON] or [run for run, _ in named]
    if len(chosen) > 1:
        ids = ", ".join(chosen)
        raise RunError(f"{len(chosen)} runs are named {run_id!r}.", hint=f"Use one of the ids {ids}.")
    if not chosen:
        raise RunError(f"There is no run {run_id!r:.80}.", hint="`edgefl run list` names all runs.")
    return str(chosen[0])


def get_run(session: Session, run_id: str) -> RunRow:
    """The run that `find_run` finds."""
    return session.get_one(RunRow, find_run(session, run_id))


def kept_by_devices(state: ServerState, run: RunRow) -> str:
    """Names what devices keep of a run as long as it is active; empty: nothing."""
    if strategy_for(RunSettings.from_json(run.settings)).demand.correction is not Correction.NONE:
        return "their corrections"
    manifest = ModelFile(state.models.get(run.model_hash)).manifest
    return "the parameters that are their own" if manifest.local_parameters else ""


def readable_runs(
    state: ServerState, session: Session, *conditions: ColumnElement[bool]
) -> Iterator[tuple[str, RunRow | None]]:
    """Runs in the order in which they were created; None for one whose row cannot be read, which is noted."""
    order = RunRow.created_clock, RunRow.run
    try:
        rows = {row.run: row for row in session.scalars(select(RunRow).where(*conditions).order_by(*order))}
        ids: Iterable[str] = rows
    except DatabaseError:
        raise
    except Exception:  # one of them spoils the query: each by itself
        rows, ids = {}, session.scalars(select(RunRow.run).where(*conditions).order_by(*order)).all()
    for run_id in ids:
        try:
            row = rows.get(run_id) or session.get_one(RunRow, run_id)
        except DatabaseError:
            raise
        except Exception as error:
            state.troubles.note(run_id, "read the run", error, state.clock())
            yield run_id, None
        else:
            state.troubles.clear(run_id, "read the run")
            yield run_id, row


def metrics_of(run: RunRow) -> tuple[Metric, ...]:
    """The metrics of a run's model."""
    return tuple(
        Metric(
            each["name"],
            each["finaliser"],
            tuple(each["states"]),
            each.get("settings", {}),
            each.get("direction", ""),
        )
        for each in run.metrics
    )
