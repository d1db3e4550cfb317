"""What happens without a device asking: deadlines, and folding the outcomes of closed rounds into new weights."""

from __future__ import annotations

import contextlib
import logging

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from edgefl.errors import EdgeflError, StorageError, storage_error
from edgefl.wire.messages import MetricState
from edgefl_server.aggregation import (
    Contribution,
    Expectation,
    ModelLimits,
    RoundState,
    RunSettings,
    StrategyState,
    Update,
    decode_outcome,
    merge,
    strategy_for,
    validate,
)
from edgefl_server.storage.round_rows import Disposition, RunState, load_round, save_round
from edgefl_server.storage.runs import fail_run_if_hopeless, metrics_of, open_next_round
from edgefl_server.storage.state import ServerState, get_vector, put_vector
from edgefl_server.storage.tables import OutcomeRow, RoundRow, RunRow

__all__ = ["close_due_rounds", "fold_pending", "sweep_outcomes"]

_log = logging.getLogger(__name__)


def close_due_rounds(state: ServerState) -> bool:
    """Ends the tasks whose longest time is over, and closes rounds whose time has come; True when there were any."""
    with state.database.read() as session:
        now = state.clock()
        due = [
            run.run
            for run in session.scalars(select(RunRow).where(RunRow.state == RunState.ACTIVE))
            if _is_due(session, run, now)
        ]
    for run_id in due:
        with state.database.write() as session:
            run = session.get_one(RunRow, run_id)
            if run.state != RunState.ACTIVE:
                continue
            before = load_round(session, run, run.round)
            after = before.advance(now)
            save_round(session, run, run.round, before, after, now)
            if after.state is RoundState.FAILED:
                session.flush()
                fail_run_if_hopeless(session, run, now)
    return bool(due)


def _is_due(session: Session, run: RunRow, now: float) -> bool:
    before = load_round(session, run, run.round)
    return before.advance(now) != before


def fold_pending(state: ServerState) -> bool:
    """Folds every round that is FOLDING, also those that a killed server left so; True when there were any.

    Raises:
        StorageError: no space, or an accepted outcome is damaged. The round stays FOLDING.
    """
    with state.database.read() as session:
        pending = session.execute(
            select(RoundRow.run, RoundRow.number)
            .where(RoundRow.state == RoundState.FOLDING.value)
            .order_by(RoundRow.run, RoundRow.number)
        ).all()
    problem: EdgeflError | None = None
    for run_id, number in pending:
        try:
            _fold(state, run_id, number)
        except EdgeflError as error:
            # The other runs go on; this one keeps its outcomes and is tried again.
            problem = error
            _explain(state, run_id, number, f"cannot fold yet: {error.message}")
    if problem is not None:
        raise problem
    return bool(pending)


def _explain(state: ServerState, run_id: str, number: int, why: str) -> None:
    with contextlib.suppress(StorageError), state.database.write() as session:
        row = session.get_one(RoundRow, (run_id, number))
        if row.state == RoundState.FOLDING.value:
            row.why = why[:500]


def _fold(state: ServerState, run_id: str, number: int) -> None:
    with state.database.read() as session:
        run = session.get_one(RunRow, run_id)
        row = session.get_one(RoundRow, (run_id, number))
        outcomes = session.scalars(
            select(OutcomeRow)
            .where(OutcomeRow.run == run_id, OutcomeRow.round == number, OutcomeRow.disposition == Disposition.ACCEPTED)
            .order_by(OutcomeRow.task_id)
        ).all()
    settings, limits = RunSettings.from_json(run.settings), ModelLimits.from_json(run.limits)
    strategy = strategy_for(settings, run.weight_size, row.enrolled)
    before = StrategyState(
        get_vector(state, row.base_weights_hash),
        {name: get_vector(state, digest) for name, digest in row.base_slots.items()},
    )

    def contribution(each: OutcomeRow) -> Contribution:
        expected = Expectation(
            each.task_id,
            row.base_weights_hash,
            run.layout_hash,
            run.weight_size,
            run.statistic_size,
            sections=strategy.demand.sections,
        )

        def read() -> tuple[Update, tuple[MetricState, ...]]:
            outcome = decode_outcome(state.outcomes.get(each.digest))
            found = validate(outcome, expected)
            if found is None:
                raise StorageError(f"The accepted outcome of task {each.task_id} holds no update.")
            return found, outcome.metrics

        return Contribution(each.task_id, each.num_examples, read)

    try:
        merged = merge(
            strategy,
            before,
            [contribution(each) for each in outcomes],
            settings,
            limits,
            metrics_of(run),
            run.weight_size,
            state.folder,
        )
    except OSError as error:
        raise storage_error(error, "write a temporary file in", state.folder) from error
    result = merged.state
    # The vectors first, then one transaction that names them: a crash in between leaves orphan files.
    weights_hash = put_vector(state, result.weights)
    slots = {name: put_vector(state, vector) for name, vector in result.slots.items()}
    with state.database.write() as session:
        run = session.get_one(RunRow, run_id)
        row = session.get_one(RoundRow, (run_id, number))
        if row.state != RoundState.FOLDING.value:  # stopped meanwhile
            return
        now = state.clock()
        after = load_round(session, run, number).folded()
        row.state, row.ended_at, row.weights_hash = after.state.value, now, weights_hash
        row.why = row.why if not row.why.startswith("cannot fold yet") else ""
        row.num_examples = merged.num_examples
        row.metric_sums, row.diagnostics = merged.metric_sums, merged.diagnostics
        session.execute(
            update(OutcomeRow)
            .where(OutcomeRow.run == run_id, OutcomeRow.round == number, OutcomeRow.disposition == Disposition.ACCEPTED)
            .values(disposition=Disposition.FOLDED)
        )
        run.weights_hash, run.slots = weights_hash, slots
        open_next_round(session, run, now)
    _log.info("run %s: round %d done, %d outcomes folded", run_id, number, len(outcomes))
    # Nothing needs them any more, and they say more about single devices than the weights do.
    for each in outcomes:
        with contextlib.suppress(EdgeflError):
            state.outcomes.delete(each.digest)


def sweep_outcomes(state: ServerState) -> int:
    """Deletes files that no outcome needs: orphans of a crash, and what was folded. For the start, before serving.

    Returns:
        How many files were deleted.
    """
    with state.database.read() as session:
        needed = set(
            session.scalars(
                select(OutcomeRow.digest).where(
                    OutcomeRow.disposition.in_([Disposition.ACCEPTED, Disposition.DISCARDED])
                )
            )
        )
    orphans = [digest for digest in state.outcomes if digest not in needed]
    for digest in orphans:
        state.outcomes.delete(digest)
    return len(orphans)
