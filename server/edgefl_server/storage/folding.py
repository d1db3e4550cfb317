"""Does what no device asks for: looks at deadlines, and folds the outcomes of closed rounds into new weights."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Mapping
from dataclasses import replace

from sqlalchemy import and_, bindparam, func, select, update
from sqlalchemy.exc import DatabaseError

from edgefl.errors import EdgeflError, OutcomeRefusedError, StorageError, storage_error
from edgefl.wire.messages import Correction
from edgefl_server.aggregation import (
    Believed,
    Change,
    Cohort,
    Contribution,
    Expectation,
    FoldState,
    ModelLimits,
    StrategyState,
    Update,
    after_fold,
    decode_outcome,
    fold,
    in_order,
    strategy_for,
    validate,
    without_basis,
)
from edgefl_server.storage.blobs import DamagedBlobError
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
from edgefl_server.storage.runs import add_version, after_failed_fold, metrics_of, move_on
from edgefl_server.storage.sessions import Session
from edgefl_server.storage.state import ServerState, get_vector, put_vector
from edgefl_server.storage.statements import Row, Statement
from edgefl_server.storage.tables import (
    Disposition,
    FoldRow,
    RunRow,
    RunState,
    VersionRow,
    assignments,
    folds,
    outcomes,
    runs,
    versions,
)

__all__ = ["close_due_rounds", "fold_pending", "fold_round", "pending_folds", "settle_folds"]

_log = logging.getLogger(__name__)
_CLOSE, _FOLD = "close the round", "fold"
_CANNOT = "cannot "
_ACTIVE = Statement(
    with_standing(select(*STANDING).select_from(runs))
    .where(runs.c.state == RunState.ACTIVE)
    .order_by(runs.c.created_clock, runs.c.run)
)
_PENDING = Statement(
    select(folds.c.run, func.min(folds.c.number))
    .where(folds.c.state == FoldState.FOLDING.value)
    .group_by(folds.c.run)
    .order_by(folds.c.run)
)
"""The earliest of each run: what comes later is merged into what it makes."""
_MARK = Statement(
    update(outcomes).where(outcomes.c.task_id == bindparam("of")).values(disposition=bindparam("disposition"))
)
_BASES = outcomes.alias("bases")
_OF_FOLD = Statement(
    select(
        outcomes.c.task_id,
        outcomes.c.digest,
        outcomes.c.num_examples,
        outcomes.c.accepted,
        versions.c.weights_hash,
        versions.c.number.label("version"),
        assignments.c.continues,
        _BASES.c.disposition.label("basis"),
    )
    .join(assignments, assignments.c.task_id == outcomes.c.task_id)
    .outerjoin(_BASES, _BASES.c.task_id == assignments.c.continues)
    .join(versions, and_(versions.c.run == assignments.c.run, versions.c.number == assignments.c.version))
    .where(
        outcomes.c.run == bindparam("run"),
        outcomes.c.fold == bindparam("fold"),
        outcomes.c.disposition == Disposition.ACCEPTED,
    )
)


class _DamagedOutcomeError(Exception):
    """The accepted outcome of the task that it names is not what was accepted."""


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
        with contextlib.suppress(EdgeflError):  # the next tidying does it
            state.outcomes.delete(state.folded.popleft())


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


def _fold(state: ServerState, run_id: str, number: int, moved: Callable[[], None]) -> None:
    with state.database.read() as session:
        run = session.row(RunRow, run=run_id)
        row = session.row(FoldRow, run=run_id, number=number)
        version = session.row(VersionRow, run=run_id, number=run.version)
        accepted = session.execute(_OF_FOLD, {"run": run_id, "fold": number}).all()
        of = load_fold(session, run_id, number)
    settings, schedule = of.settings, of.schedule
    closed = after = replace(of.standing, why=_reason(row.why))
    believed = Believed(
        settings.max_examples, settings.max_weight_ratio, ModelLimits.from_json(run.limits), metrics_of(run)
    )
    strategy = strategy_for(settings)
    try:
        before = StrategyState(
            get_vector(state, version.weights_hash),
            run.weight_size,
            {name: get_vector(state, digest) for name, digest in version.slots.items()},
        )
    except DamagedBlobError as error:
        fail_damaged_run(state, run_id, f"round {number} cannot be folded: {error.message}")
        moved()
        return

    def contribution(each: Row) -> Contribution:
        expected = Expectation(
            each.task_id,
            each.weights_hash,
            run.layout_hash,
            run.weight_size,
            run.statistic_size,
            sections=strategy.demand.sections,
        )

        def read() -> Update:
            try:
                outcome = decode_outcome(state.outcomes.get(each.digest))
                found = validate(outcome, expected)
            except (DamagedBlobError, OutcomeRefusedError) as error:
                raise _DamagedOutcomeError(each.task_id) from error
            if found is None:
                raise StorageError(f"The accepted outcome of task {each.task_id} holds no update.")
            return found.begun(each.version, newest=run.version)

        return Contribution(each.task_id, each.num_examples, read, each.accepted if schedule.by_acceptance else 0)

    bases = {}
    if strategy.demand.correction is not Correction.NONE or believed.limits.local:
        bases = {each.task_id: each.continues for each in accepted}
    gone = {each.continues for each in accepted if each.basis in (Disposition.DISCARDED, Disposition.DAMAGED)}
    damaged: set[str] = set()
    folded = None
    while folded is None:
        baseless = without_basis(bases, gone | damaged) - damaged
        lost = {
            **dict.fromkeys(sorted(damaged), Disposition.DAMAGED),
            **dict.fromkeys(sorted(baseless), Disposition.DISCARDED),
        }
        intact = [each for each in accepted if each.task_id not in lost]
        if lost:
            change = schedule.lose(closed, len(lost), _left_out(damaged, baseless))
            after = change.standing
            if after.state is FoldState.FAILED:
                _give_up(state, of, change, lost)
                moved()
                return
        try:
            folded = fold(
                strategy, before, in_order(map(contribution, intact)), believed, Cohort(row.enrolled), state.folder
            )
        except _DamagedOutcomeError:
            # What was summed holds a part of the round only: begin again without all that are damaged.
            for each in intact:
                try:
                    contribution(each).read()
                except _DamagedOutcomeError as error:
                    _log.error("run %s: the accepted outcome of task %s is damaged: %s", run_id, error, error.__cause__)
                    damaged.add(each.task_id)
        except OSError as error:
            raise storage_error(error, "write a temporary file in", state.folder) from error
    if not folded.is_finite:
        why = "the new weights would not be finite: the run diverges"
        _give_up(state, of, Change(replace(after, state=FoldState.FAILED, why=why)), lost)
        moved()
        return
    result = folded.state
    # The vectors first, then one transaction that names them: a crash in between leaves orphan files.
    weights_hash = put_vector(state, result.weights)
    slots = {name: put_vector(state, vector) for name, vector in result.slots.items()}
    with state.database.write() as session:
        reached = load_fold(session, run_id, number)
        if reached.standing.state is not FoldState.FOLDING:  # stopped meanwhile
            return
        now = state.now()
        figures = {
            "num_examples": folded.num_examples,
            "metric_sums": folded.metric_sums,
            "diagnostics": folded.diagnostics,
        }
        _mark(session, lost)
        finish_fold(session, reached, schedule.folded(after), figures, now)
        add_version(session, run_id, run.version + 1, number, weights_hash, slots)
        move_on(session, run_id, after_fold(number, settings.rounds, gathering=not reached.latest), now)
    state.folded.extend(each.digest for each in intact)
    moved()
    _log.info("run %s: round %d done, %d outcomes folded", run_id, number, len(intact))


def _give_up(state: ServerState, of: Gathering, change: Change, lost: Mapping[str, str]) -> None:
    """Fails a fold of which too little is left, or nothing to go on from."""
    with state.database.write() as session:
        reached = load_fold(session, of.run, of.fold)
        if reached.standing.state is not FoldState.FOLDING:  # stopped meanwhile
            return
        now = state.now()
        _mark(session, lost)
        apply(session, reached, change, now)
        after_failed_fold(session, of.run, of.fold, of.settings.rounds, now)
    state.keep_generation()


def _mark(session: Session, lost: Mapping[str, str]) -> None:
    for task, disposition in lost.items():  # a statement for each: SQLite bounds the values of one
        session.execute(_MARK, {"of": task, "disposition": disposition})


def _left_out(damaged: set[str], baseless: set[str]) -> str:
    whys = ("are damaged", damaged), ("go on from others that do not count", baseless)
    return "; ".join(
        f"{len(tasks)} accepted outcomes {why} and left out ({_some(tasks)})" for why, tasks in whys if tasks
    )


def _some(tasks: set[str]) -> str:
    """Names at most three; the log has all that are damaged."""
    return ", ".join(sorted(tasks)[:3]) + (", …" if len(tasks) > 3 else "")
