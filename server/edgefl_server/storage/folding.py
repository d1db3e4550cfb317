"""Does what no device asks for: looks at deadlines, and folds the outcomes of closed rounds into new weights."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Mapping
from dataclasses import replace

from sqlalchemy import bindparam, func, select, update
from sqlalchemy.exc import DatabaseError

from edgefl.errors import EdgeflError, StorageError
from edgefl_server.aggregation import Change, FoldState, after_fold, finalise
from edgefl_server.storage.changes import apply, finish_fold
from edgefl_server.storage.cohorts import (
    STANDING,
    Gathering,
    concerned_by_time,
    gathering_of,
    load_fold,
    load_gathering,
    with_standing,
)
from edgefl_server.storage.damage import fail_damaged_run
from edgefl_server.storage.fold_process import make_beside
from edgefl_server.storage.made_folds import Figures, LostStartError, Made, make
from edgefl_server.storage.merging import Work, load_work
from edgefl_server.storage.runs import add_version, after_failed_fold, metrics_of, move_on
from edgefl_server.storage.sessions import Session
from edgefl_server.storage.state import ServerState
from edgefl_server.storage.statements import Statement
from edgefl_server.storage.tables import FoldRow, RunRow, RunState, VersionRow, devices, folds, outcomes, runs

__all__ = ["close_due_rounds", "fold_pending", "fold_round", "pending_folds", "settle_folds"]

_log = logging.getLogger(__name__)
_CLOSE, _FOLD = "close the round", "fold"
_CANNOT = "cannot "
_LARGE_BYTES = 1 << 30
"""Outcomes of so many bytes are folded in a process of its own: its start takes longer than to average fewer here."""
_MOST_EXAMPLES = 2**63 - 1
"""More no column holds: a thousand devices that claim as many as one may would keep their evaluation from its end."""
_pausing = runs.alias("pausing")
_PAUSED = select(_pausing.c.run).where(_pausing.c.state == RunState.PAUSED)
_ACTIVE = Statement(
    with_standing(select(*STANDING).select_from(runs))
    .where(runs.c.state == RunState.ACTIVE, runs.c.evaluates.not_in(_PAUSED))
    .order_by(runs.c.created_clock, runs.c.run)
)
_PENDING = Statement(
    select(folds.c.run, func.min(folds.c.number))
    .where(folds.c.state == FoldState.FOLDING.value)
    .group_by(folds.c.run)
    .order_by(folds.c.run)
)
"""The earliest of each run: what comes later is merged into what it makes."""
_REMOVED = Statement(
    select(outcomes.c.device)
    .join(devices, devices.c.device == outcomes.c.device)
    .where(
        outcomes.c.run == bindparam("run"),
        outcomes.c.fold == bindparam("fold"),
        devices.c.removed_at.is_not(None),
    )
)
_MARK = Statement(
    update(outcomes).where(outcomes.c.task_id == bindparam("of")).values(disposition=bindparam("disposition"))
)


def close_due_rounds(state: ServerState) -> bool:
    """Ends the tasks whose longest time is over, and closes rounds whose time has come; True when there were any.

    A run with which this is not possible is noted and tried again; the others do not wait for it.
    """
    now = state.clock()
    due, failed = [], dict[str, Exception]()
    with state.database.read() as session:
        for row in session.execute(_ACTIVE).all():
            if state.troubles.rest(row.run, _CLOSE, now):
                continue
            try:
                if _advance(session, gathering_of(row), now) is not None:
                    due.append(row.run)
                else:
                    state.troubles.clear(row.run, _CLOSE)
            except DatabaseError:
                raise
            except Exception as error:
                failed[row.run] = error
    closed = False
    for run_id in due:
        try:
            closed = _close(state, run_id) or closed
        except Exception as error:
            failed[run_id] = error
        else:
            state.troubles.clear(run_id, _CLOSE)
    for run_id, reason in failed.items():
        _note(state, run_id, _CLOSE, reason)
    return closed


def _close(state: ServerState, run_id: str) -> bool:
    now = state.now()
    with state.database.write() as session:
        if session.scalar(select(RunRow.state).where(RunRow.run == run_id)) != RunState.ACTIVE:
            return False
        of = load_gathering(session, run_id)
        change = _advance(session, of, now.clock)
        if change is None:  # an outcome came first
            return True
        apply(session, of, change, now)
        failed = change.standing.state is FoldState.FAILED
        if failed:
            after_failed_fold(session, run_id, of.fold, of.settings.rounds, now)
    if failed:
        state.keep_generation()
    return True


def _advance(session: Session, of: Gathering, now: float) -> Change | None:
    return of.schedule.advance(of.standing, concerned_by_time(session, of, now), now)


def pending_folds(state: ServerState) -> list[tuple[str, int]]:
    """The run and number of folds that are to be merged and may be tried now, also those that a killed server left so.

    Of a run with several, it is the earliest.
    """
    with state.database.read() as session:
        pending = session.execute(_PENDING).all()
    now = state.clock()
    return [(run_id, number) for run_id, number in pending if not state.troubles.rest(run_id, _FOLD, now)]


def fold_round(state: ServerState, run_id: str, number: int, moved: Callable[[], None] = lambda: None) -> bool:
    """Folds a round.

    Args:
        state: the server's.
        run_id: the run.
        number: the round, which is FOLDING.
        moved: is called once the next round is open or the run is over. What is left to do then, no device waits for:
            see `settle_folds`.

    Returns:
        False when that is not possible now: it stays FOLDING, the trouble is noted, others go on.
    """
    try:
        _fold(state, run_id, number, moved)
    except Exception as error:
        _note(state, run_id, _FOLD, error)
        return False
    state.troubles.clear(run_id, _FOLD)
    return True


def fold_pending(state: ServerState) -> bool:
    """Folds, one after the other, all that `pending_folds` finds; True when one was folded."""
    results = [fold_round(state, run_id, number) for run_id, number in pending_folds(state)]
    settle_folds(state)
    return any(results)


def settle_folds(state: ServerState) -> None:
    """Says how far the database has come with the folds until now, and then deletes the outcomes that are in them.

    It needs the disk and the only writer, and so is not done while devices are handed the next round's tasks. Were it
    never done, the next start would do it.
    """
    count = len(state.folded)  # those of a fold that ends meanwhile are for the next time
    if not count:
        return
    state.keep_generation()
    # Nothing needs them any more, and they say more about single devices than the weights do.
    for _ in range(count):
        try:
            digest = state.folded.popleft()
        except IndexError:  # a stop settles while the last settling is still under way
            return
        state.placements.forget(digest)
        with contextlib.suppress(EdgeflError):  # the next tidying does it
            state.outcomes.delete(digest)


def _note(state: ServerState, run_id: str, action: str, error: Exception) -> None:
    """Keeps a trouble where operators look, also after a restart."""
    message = state.troubles.note(run_id, action, error, state.clock())
    waiting = FoldRow.state.not_in([FoldState.DONE.value, FoldState.FAILED.value])
    # On a full disk it is only in memory and in the log.
    with contextlib.suppress(StorageError), state.database.write() as session:
        rows = session.execute(select(FoldRow.number, FoldRow.why).where(FoldRow.run == run_id, waiting)).all()
        for number, why in rows:
            text = "; ".join(filter(None, (_reason(why), f"{_CANNOT}{action} yet: {message}")))[:500]
            if text != why:
                session.execute(update(folds).where(folds.c.run == run_id, folds.c.number == number).values(why=text))


def _reason(why: str) -> str:
    """The reason for which a round closed, without what kept it from being folded meanwhile."""
    return why.partition(_CANNOT)[0].removesuffix("; ")


class _RemovedMeanwhileError(Exception):
    """A device was removed, and told so, while what it had sent was merged."""


def _fold(state: ServerState, run_id: str, number: int, moved: Callable[[], None]) -> None:
    while True:
        with contextlib.suppress(_RemovedMeanwhileError):  # merged anew without the device, which is in no row any more
            return _fold_once(state, run_id, number, moved)


def _fold_once(state: ServerState, run_id: str, number: int, moved: Callable[[], None]) -> None:
    with state.database.read() as session:
        work = load_work(session, run_id, number)
    closed = replace(work.of.standing, why=_reason(work.why))
    make_it = make_beside if sum(each.size for each in work.accepted) >= _LARGE_BYTES else make
    try:
        made = make_it(state, work, closed)
    except LostStartError as error:
        fail_damaged_run(state, run_id, f"round {number} cannot be folded: {error.message}")
        moved()
        return
    if made.figures is None:
        _give_up(state, work.of, made)
    elif not _keep(state, work, made, made.figures):
        return
    moved()


def _keep(state: ServerState, work: Work, made: Made, found: Figures) -> bool:
    """Makes what was merged the newest version, or keeps what was found; False when the run was stopped meanwhile.

    Raises:
        _RemovedMeanwhileError: it is to be merged again, without what the device sent. Nothing was written.
    """
    of, makes_weights = work.of, work.of.settings.makes_weights
    if found.difference is not None:
        state.differences.keep(found.weights_hash, work.version.weights_hash, found.difference)
    # The vectors are there; now one transaction that names them: a crash in between leaves orphan files.
    with state.database.write() as session:
        reached = load_fold(session, of.run, of.fold)
        if reached.standing.state is not FoldState.FOLDING:
            return False
        gone = session.execute(_REMOVED, {"run": of.run, "fold": of.fold}).all()
        if not {each.device for each in made.intact}.isdisjoint(each.device for each in gone):
            raise _RemovedMeanwhileError
        now, fetched = state.now(), state.fetched.of(of.run)
        figures = {
            "num_examples": min(found.num_examples, _MOST_EXAMPLES),
            "devices": len({each.device for each in made.intact} - {of.root}),
            "bytes_up": sum(each.size for each in made.intact),
            "metric_sums": found.metric_sums,
            "bytes_down": fetched,
            "diagnostics": found.diagnostics,
            "findings": found.findings,
        }
        _mark(session, made.lost)
        finish_fold(session, reached, of.schedule.folded(made.change.standing), figures, now)
        if makes_weights:
            number, parent = work.run.version + 1, work.run.version
            add_version(session, of.run, number, of.fold, found.weights_hash, dict(found.slots), now, parent=parent)
        enough = _enough(session, work)
        rounds, gathering = reached.settings.rounds, not reached.latest
        move_on(session, of.run, after_fold(of.fold, rounds, gathering=gathering, enough=enough), now)
    state.fetched.written(of.run, fetched)
    state.folded.extend(each.digest for each in made.intact)
    _log.info("run %s: round %d done, %d outcomes folded", of.run, of.fold, len(made.intact))
    return True


def _enough(session: Session, work: Work) -> str:
    """Says why a run is done before its last round, as its metrics get no better; empty: it is not."""
    settings = work.of.settings
    if not settings.patience:
        return ""
    metrics, (versions, made_by) = metrics_of(work.run), _lineage(session, work)
    # What evaluates its versions, if something does; else what devices say of their training.
    evaluation = session.scalar(select(RunRow.run).where(RunRow.evaluates == work.of.run))
    done = session.execute(
        select(FoldRow.number, FoldRow.version, FoldRow.metric_sums)
        .where(FoldRow.run == (evaluation or work.of.run), FoldRow.state == FoldState.DONE.value)
        .order_by(FoldRow.number)
    )
    sums = [each.metric_sums for each in done if (each.version in versions if evaluation else each.number in made_by)]
    found = [finalise(each, metrics).get(settings.patience_metric) for each in sums]
    values = [each for each in found if each is not None]
    direction = next((each.direction for each in metrics if each.name == settings.patience_metric), "")
    return settings.why_over(values, direction)


def _lineage(session: Session, work: Work) -> tuple[set[int], set[int]]:
    """The versions from which the weights come, and the folds that made them: without what was gone back from."""
    of_run = select(VersionRow.number, VersionRow.parent, VersionRow.fold).where(VersionRow.run == work.of.run)
    known = {number: (parent, fold) for number, parent, fold in session.execute(of_run)}
    numbers, made_by = set[int](), {work.of.fold}
    at = work.run.version
    while at is not None:
        numbers.add(at)
        at, fold = known[at]
        made_by.add(fold)
    return numbers, made_by


def _give_up(state: ServerState, of: Gathering, made: Made) -> None:
    """Fails a fold of which too little is left, or nothing to go on from."""
    with state.database.write() as session:
        reached = load_fold(session, of.run, of.fold)
        if reached.standing.state is not FoldState.FOLDING:  # stopped meanwhile
            return
        now = state.now()
        _mark(session, made.lost)
        apply(session, reached, made.change, now)
        after_failed_fold(session, of.run, of.fold, reached.settings.rounds, now)
    state.keep_generation()


def _mark(session: Session, lost: Mapping[str, str]) -> None:
    for task, disposition in lost.items():  # a statement for each: SQLite bounds the values of one
        session.execute(_MARK, {"of": task, "disposition": disposition})
