"""Deletes what does not stay: files that no outcome needs any more, and rows that nobody does."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, and_, delete, func, select

from edgefl.errors import EdgeflError, StorageError
from edgefl.wire.messages import Reason
from edgefl_server.aggregation import AssignmentState, FoldState
from edgefl_server.storage.orphans import find_unrecorded, put_aside, sweep_orphans
from edgefl_server.storage.sessions import Session
from edgefl_server.storage.state import SECONDS_PER_DAY, ServerState
from edgefl_server.storage.tables import AssignmentRow, Disposition, FoldRow, OutcomeRow, RunRow, RunState
from edgefl_server.storage.troubles import STORE

__all__ = ["Swept", "prune_rows", "sweep_outcomes"]

_log = logging.getLogger(__name__)
_SHORTEST_KEEP_ROWS_SECONDS = 7 * SECONDS_PER_DAY
"""A device that was offline meanwhile is still answered with 202 for what it had sent."""
_AT_ONCE = 500
"""SQLite bounds the values of one statement."""


@dataclass(frozen=True)
class Swept:
    """The result of `sweep_outcomes`.

    Attributes:
        deleted: files that the database knows to be done with.
        orphans: files that no row names, now in the folder of orphans.
    """

    deleted: int = 0
    orphans: int = 0


def sweep_outcomes(state: ServerState, *, starting: bool = True) -> Swept:
    """Deletes what was folded, what is only noted, and what has been kept for long enough.

    Args:
        state: the server's.
        starting: nothing is being accepted yet: a file that no row names was left by a crash, or the database is older
            than the files. It is put aside, and deleted once the database knows an outcome with its content as folded.

    Raises:
        StorageError: a file cannot be moved, and not for want of space: with a full disk it stays until the next start.
    """
    deleted, unknown = 0, []
    for digest in sorted(state.outcomes):
        with state.database.read() as session:
            done_with = _done_with(state, session, digest)
        if done_with:
            state.outcomes.delete(digest)
            deleted += 1
        elif done_with is None:
            unknown.append(digest)
    if not starting:
        return Swept(deleted)
    for digest in unknown:
        _log.warning("no row of the database names outcomes/%s: it is moved to orphans/", digest)
    for digest in unknown:
        try:
            put_aside(state, digest)
        except StorageError as error:
            if not error.full:
                raise
            state.troubles.note("", STORE, error, state.clock())
    deleted += sweep_orphans(state)
    find_unrecorded(state)
    return Swept(deleted, len(unknown))


def _done_with(state: ServerState, session: Session, digest: str) -> bool | None:
    """Whether nothing needs a file any more; None: no row names it."""
    rows = session.execute(
        select(OutcomeRow.disposition, FoldRow.ended_clock)
        .join(FoldRow, (FoldRow.run == OutcomeRow.run) & (FoldRow.number == OutcomeRow.fold))
        .where(OutcomeRow.digest == digest)
    ).all()
    if not rows:
        return None
    kept_until = state.clock() - state.keep_seconds
    return all(
        disposition in (Disposition.FOLDED, Disposition.STALE, Disposition.NOTED)
        or (disposition in (Disposition.DISCARDED, Disposition.DAMAGED) and ended is not None and ended <= kept_until)
        for disposition, ended in rows
    )


def prune_rows(state: ServerState) -> int:
    """Deletes the rows of tasks and outcomes of rounds that ended long ago, and keeps their counts with the round.

    While a run is active, each device's latest folded task stays: the next one says which that was. So do its latest
    one of a cohort that goes on, after which the next one is counted, and tasks that took too long, for which a device
    rests; and whatever still has a file.

    Returns:
        How many rows of tasks were deleted.
    """
    before = state.clock() - max(state.keep_seconds, _SHORTEST_KEEP_ROWS_SECONDS)
    ended = [FoldState.DONE.value, FoldState.FAILED.value]
    with state.database.read() as session:
        old = session.execute(
            select(FoldRow.run, FoldRow.number)
            .where(FoldRow.state.in_(ended), FoldRow.ended_clock <= before)
            .where(select(AssignmentRow.task_id).where(_of(FoldRow.run, FoldRow.number)).exists())
            .order_by(FoldRow.run, FoldRow.number)
        ).all()
    pruned, needed = 0, dict[str, set[str] | None]()
    for run_id, number in old:
        try:
            if run_id not in needed:
                # Those that become the latest from now on are of later rounds.
                with state.database.read() as session:
                    active = _is_active(session, run_id)
                    needed[run_id] = _latest_folded(session, run_id) | _latest(session, run_id) if active else None
            # A transaction each: devices wait for the writer.
            pruned += _prune_round(state, run_id, number, needed[run_id])
        except EdgeflError:
            raise
        except Exception as error:
            state.troubles.note(run_id, "prune its rows", error, state.clock())
    if pruned:
        _log.info("pruned the rows of %d tasks", pruned)
    return pruned


def _of(run: Any, number: Any) -> ColumnElement[bool]:
    return and_(AssignmentRow.run == run, AssignmentRow.fold == number)


def _prune_round(state: ServerState, run_id: str, number: int, latest: set[str] | None) -> int:
    """Prunes a round; `latest` are tasks that stay because the run is active, None when it is over."""
    with state.database.write() as session:
        row = session.get_one(FoldRow, (run_id, number))
        root = session.get_one(RunRow, run_id).settings.get("root_device")
        outcomes = session.execute(
            select(
                OutcomeRow.task_id,
                OutcomeRow.device,
                OutcomeRow.digest,
                OutcomeRow.status,
                OutcomeRow.reason,
                OutcomeRow.disposition,
            ).where(OutcomeRow.run == run_id, OutcomeRow.fold == number)
        ).all()
        needed = (latest or set()) | {each.task_id for each in outcomes if state.outcomes.path(each.digest) is not None}
        counts = {status: {reason: dict(by) for reason, by in more.items()} for status, more in row.pruned.items()}
        gone = []
        for each in outcomes:
            if each.task_id in needed:
                continue
            gone.append(each.task_id)
            if each.device == root and each.status == "done":  # a round counts no update of it
                continue
            by = counts.setdefault(each.status, {}).setdefault(each.reason, {})
            by[each.disposition] = by.get(each.disposition, 0) + 1
        tasks = session.execute(select(AssignmentRow.task_id, AssignmentRow.state).where(_of(run_id, number))).all()
        late = {each.task_id for each in tasks if each.state == AssignmentState.OUT_OF_TIME.value}
        if latest is not None:
            needed |= late
        elif late:
            by = counts.setdefault("failed", {}).setdefault(Reason.OUT_OF_TIME.name.lower(), {})
            by[Disposition.NOTED] = by.get(Disposition.NOTED, 0) + len(late)
        unneeded = [each.task_id for each in tasks if each.task_id not in needed]
        if not unneeded:
            return 0
        for start in range(0, len(gone), _AT_ONCE):
            session.execute(delete(OutcomeRow).where(OutcomeRow.task_id.in_(gone[start : start + _AT_ONCE])))
        for start in range(0, len(unneeded), _AT_ONCE):
            session.execute(delete(AssignmentRow).where(AssignmentRow.task_id.in_(unneeded[start : start + _AT_ONCE])))
        row.pruned = counts
        return len(unneeded)


def _is_active(session: Session, run_id: str) -> bool:
    return session.scalar(select(RunRow.state).where(RunRow.run == run_id)) in RunState.GOING_ON


def _latest_folded(session: Session, run_id: str) -> set[str]:
    """Finds every device's latest task that is part of the weights."""
    latest = (
        select(OutcomeRow.device, func.max(OutcomeRow.fold).label("fold"))
        .where(OutcomeRow.run == run_id, OutcomeRow.disposition == Disposition.FOLDED)
        .group_by(OutcomeRow.device)
        .subquery()
    )
    return set(
        session.scalars(
            select(OutcomeRow.task_id)
            .join(latest, (latest.c.device == OutcomeRow.device) & (latest.c.fold == OutcomeRow.fold))
            .where(OutcomeRow.run == run_id, OutcomeRow.disposition == Disposition.FOLDED)
        )
    )


def _latest(session: Session, run_id: str) -> set[str]:
    """Finds every device's latest task of the cohort that is asked now."""
    asked = select(RunRow.cohort).where(RunRow.run == run_id).scalar_subquery()
    of_cohort = and_(AssignmentRow.run == run_id, AssignmentRow.cohort == asked)
    latest = (
        select(AssignmentRow.device, func.max(AssignmentRow.attempt).label("attempt"))
        .where(of_cohort)
        .group_by(AssignmentRow.device)
        .subquery()
    )
    return set(
        session.scalars(
            select(AssignmentRow.task_id)
            .join(latest, (latest.c.device == AssignmentRow.device) & (latest.c.attempt == AssignmentRow.attempt))
            .where(of_cohort)
        )
    )
