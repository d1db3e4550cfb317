"""What happens without a device asking: deadlines, and folding the outcomes of closed rounds into new weights."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable

from sqlalchemy import func, select, update
from sqlalchemy.exc import DatabaseError
from sqlalchemy.orm import Session

from edgefl.errors import EdgeflError, OutcomeRefusedError, StorageError, storage_error
from edgefl_server.aggregation import (
    AssignmentState,
    Believed,
    Cohort,
    Contribution,
    Expectation,
    ModelLimits,
    RoundState,
    RunSettings,
    StrategyState,
    Update,
    decode_outcome,
    fold,
    strategy_for,
    validate,
)
from edgefl_server.storage.blobs import DamagedBlobError
from edgefl_server.storage.damage import fail_damaged_run
from edgefl_server.storage.round_rows import Disposition, RunState, load_round, save_round
from edgefl_server.storage.runs import fail_run_if_hopeless, metrics_of, open_next_round, readable_runs
from edgefl_server.storage.state import ServerState, get_vector, put_vector
from edgefl_server.storage.tables import AssignmentRow, OutcomeRow, RoundRow, RunRow

__all__ = ["close_due_rounds", "fold_pending", "fold_round", "pending_folds"]

_log = logging.getLogger(__name__)
_CLOSE, _FOLD = "close the round", "fold"
_CANNOT = "cannot "


class _DamagedOutcomeError(Exception):
    """The accepted outcome of the task that it names is not what was accepted."""


def close_due_rounds(state: ServerState) -> bool:
    """Ends the tasks whose longest time is over, and closes rounds whose time has come; True when there were any.

    A run with which this is not possible is noted and tried again; the others do not wait for it.
    """
    now = state.clock()
    due, failed = [], dict[str, Exception]()
    with state.database.read() as session:
        for run_id, run in readable_runs(state, session, RunRow.state == RunState.ACTIVE):
            if run is None or state.troubles.rest(run_id, _CLOSE, now):
                continue
            try:
                if _is_due(session, run, now):
                    due.append(run_id)
                else:
                    state.troubles.clear(run_id, _CLOSE)
            except DatabaseError:
                raise
            except Exception as error:
                failed[run_id] = error
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
        run = session.get_one(RunRow, run_id)
        if run.state != RunState.ACTIVE:
            return False
        before = load_round(session, run, run.round)
        after = before.advance(now.clock)
        save_round(session, run, run.round, before, after, now.clock)
        if after.state is RoundState.FAILED:
            session.flush()
            fail_run_if_hopeless(session, run, now)
    if after.state is RoundState.FAILED:
        state.keep_generation()
    return True


def _is_due(session: Session, run: RunRow, now: float) -> bool:
    settings = RunSettings.from_json(run.settings)
    if not settings.deadline_seconds:
        # All the tasks of a round are read only once the oldest may have taken too long.
        oldest = session.scalar(
            select(func.min(AssignmentRow.assigned_clock)).where(
                AssignmentRow.run == run.run,
                AssignmentRow.round == run.round,
                AssignmentRow.state == AssignmentState.OPEN.value,
            )
        )
        if oldest is None or now < oldest + settings.effective_task_seconds:
            return False
    before = load_round(session, run, run.round)
    return before.advance(now) != before


def pending_folds(state: ServerState) -> list[tuple[str, int]]:
    """Run and number of every round that is FOLDING, also those that a killed server left so, and may be tried now."""
    with state.database.read() as session:
        pending = session.execute(
            select(RoundRow.run, RoundRow.number)
            .where(RoundRow.state == RoundState.FOLDING.value)
            .order_by(RoundRow.run, RoundRow.number)
        ).all()
    now = state.clock()
    return [(run_id, number) for run_id, number in pending if not state.troubles.rest(run_id, _FOLD, now)]


def fold_round(state: ServerState, run_id: str, number: int, moved: Callable[[], None] = lambda: None) -> bool:
    """Folds a round.

    Args:
        state: the server's.
        run_id: the run.
        number: the round, which is FOLDING.
        moved: is called once the next round is open or the run is over: what is left to do then, no device waits for.

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
    return any(results)


def _note(state: ServerState, run_id: str, action: str, error: Exception) -> None:
    """Keeps a trouble where operators look, also after a restart."""
    message = state.troubles.note(run_id, action, error, state.clock())
    waiting = RoundRow.state.not_in([RoundState.DONE.value, RoundState.FAILED.value])
    # On a full disk it is only in memory and in the log.
    with contextlib.suppress(StorageError), state.database.write() as session:
        rows = session.execute(select(RoundRow.number, RoundRow.why).where(RoundRow.run == run_id, waiting)).all()
        for number, why in rows:
            text = "; ".join(filter(None, (_reason(why), f"{_CANNOT}{action} yet: {message}")))[:500]
            if text != why:
                session.execute(
                    update(RoundRow).where(RoundRow.run == run_id, RoundRow.number == number).values(why=text),
                    execution_options={"synchronize_session": False},
                )


def _reason(why: str) -> str:
    """What closed a round, without what kept it from being folded meanwhile."""
    return why.partition(_CANNOT)[0].removesuffix("; ")


def _fold(state: ServerState, run_id: str, number: int, moved: Callable[[], None]) -> None:
    with state.database.read() as session:
        run = session.get_one(RunRow, run_id)
        row = session.get_one(RoundRow, (run_id, number))
        outcomes = session.scalars(
            select(OutcomeRow)
            .where(OutcomeRow.run == run_id, OutcomeRow.round == number, OutcomeRow.disposition == Disposition.ACCEPTED)
            .order_by(OutcomeRow.task_id)
        ).all()
    settings = RunSettings.from_json(run.settings)
    believed = Believed(
        settings.max_examples, settings.max_weight_ratio, ModelLimits.from_json(run.limits), metrics_of(run)
    )
    strategy = strategy_for(settings)
    try:
        before = StrategyState(
            get_vector(state, row.base_weights_hash),
            run.weight_size,
            {name: get_vector(state, digest) for name, digest in row.base_slots.items()},
        )
    except DamagedBlobError as error:
        fail_damaged_run(state, run_id, f"round {number} cannot be folded: {error.message}")
        moved()
        return

    def contribution(each: OutcomeRow) -> Contribution:
        expected = Expectation(
            each.task_id,
            row.base_weights_hash,
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
            return found

        return Contribution(each.task_id, each.num_examples, read)

    damaged: set[str] = set()
    folded = None
    while folded is None:
        intact = [each for each in outcomes if each.task_id not in damaged]
        if damaged and len(intact) < settings.effective_minimum:
            _give_up(state, run_id, number, damaged, len(intact), settings.effective_minimum)
            moved()
            return
        try:
            folded = fold(
                strategy, before, [contribution(each) for each in intact], believed, Cohort(row.enrolled), state.folder
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
    result = folded.state
    # The vectors first, then one transaction that names them: a crash in between leaves orphan files.
    weights_hash = put_vector(state, result.weights)
    slots = {name: put_vector(state, vector) for name, vector in result.slots.items()}
    with state.database.write() as session:
        run = session.get_one(RunRow, run_id)
        row = session.get_one(RoundRow, (run_id, number))
        if row.state != RoundState.FOLDING.value:  # stopped meanwhile
            return
        now = state.now()
        after = load_round(session, run, number).folded()
        row.state, row.ended_clock, row.weights_hash = after.state.value, now.clock, weights_hash
        row.why = "; ".join(filter(None, (_reason(row.why), _left_out(damaged))))
        row.num_examples = folded.num_examples
        row.metric_sums, row.diagnostics = folded.metric_sums, folded.diagnostics
        _mark_damaged(session, damaged)
        session.execute(
            update(OutcomeRow)
            .where(OutcomeRow.run == run_id, OutcomeRow.round == number, OutcomeRow.disposition == Disposition.ACCEPTED)
            .values(disposition=Disposition.FOLDED)
        )
        run.weights_hash, run.slots = weights_hash, slots
        open_next_round(session, run, now)
    moved()
    state.keep_generation()
    _log.info("run %s: round %d done, %d outcomes folded", run_id, number, len(intact))
    # Nothing needs them any more, and they say more about single devices than the weights do.
    for each in intact:
        with contextlib.suppress(EdgeflError):  # the next tidying does it
            state.outcomes.delete(each.digest)


def _give_up(state: ServerState, run_id: str, number: int, damaged: set[str], intact: int, minimum: int) -> None:
    """Fails a round of which too little is left."""
    with state.database.write() as session:
        run = session.get_one(RunRow, run_id)
        before = load_round(session, run, number)
        if before.state is not RoundState.FOLDING:  # stopped meanwhile
            return
        now = state.now()
        _mark_damaged(session, damaged)
        why = f"{_left_out(damaged)}, with {intact} of at least {minimum} outcomes"
        save_round(session, run, number, before, before.stop(why), now.clock)
        session.flush()
        fail_run_if_hopeless(session, run, now)
    state.keep_generation()


def _mark_damaged(session: Session, damaged: set[str]) -> None:
    session.execute(update(OutcomeRow).where(OutcomeRow.task_id.in_(damaged)).values(disposition=Disposition.DAMAGED))


def _left_out(damaged: set[str]) -> str:
    """At most three tasks by name; the log has them all."""
    if not damaged:
        return ""
    names = ", ".join(sorted(damaged)[:3]) + (", …" if len(damaged) > 3 else "")
    return f"{len(damaged)} accepted outcomes are damaged and left out ({names})"
