"""Pauses of a run: nothing is handed out, what devices are at is taken, and deadlines stand still."""

from __future__ import annotations

import logging

from sqlalchemy import and_, bindparam, or_, select, update

from edgefl_server.storage.runs import RunStateError, get_run, least_served
from edgefl_server.storage.state import ServerState
from edgefl_server.storage.statements import Statement
from edgefl_server.storage.tables import CohortRow, RunRow, RunState, cohorts, runs

__all__ = ["pause_run", "resume_run"]

_log = logging.getLogger(__name__)
_PAUSE = Statement(
    update(runs)
    .where(runs.c.run == bindparam("of"))
    .values(state=RunState.PAUSED, paused_clock=bindparam("paused_clock"))
)
_RESUME = Statement(
    update(runs)
    .where(runs.c.run == bindparam("of"))
    .values(state=RunState.ACTIVE, paused_clock=None, served=bindparam("served"))
)
_SHIFT = Statement(
    update(cohorts)
    .where(cohorts.c.run == bindparam("of"), cohorts.c.number == bindparam("of_cohort"))
    .values(opened_clock=bindparam("opened_clock"), started_clock=bindparam("started_clock"))
)


def pause_run(state: ServerState, run_id: str) -> str:
    """Pauses a run: devices get no new task of it until it is resumed. One that pauses stays so.

    Returns:
        The run's id.

    Raises:
        RunError: there is no such run.
        RunStateError: it is over.
    """
    with state.database.write() as session:
        run = get_run(session, run_id)
        if run.state not in RunState.GOING_ON:
            raise RunStateError(
                f"Run {run.run} cannot be paused: it is {run.state}.",
                hint="`edgefl run create … --rounds +N` lets one that is over go on.",
            )
        found, was_active = str(run.run), run.state == RunState.ACTIVE
        if was_active:
            session.execute(_PAUSE, {"of": found, "paused_clock": state.clock()})
    if was_active:
        _log.info("run %s pauses", found)
    return found


def resume_run(state: ServerState, run_id: str) -> str:
    """Lets a run that pauses go on; the deadlines of its open round, and of its evaluation, come later by as long.

    Returns:
        The run's id.

    Raises:
        RunError: there is no such run.
        RunStateError: it does not pause.
    """
    with state.database.write() as session:
        run = get_run(session, run_id)
        if run.state != RunState.PAUSED:
            raise RunStateError(f"Run {run.run} cannot be resumed: it is {run.state}.", hint="Only a paused one can.")
        now, since = state.clock(), run.paused_clock or 0.0
        own_and_evaluation = or_(RunRow.run == run.run, RunRow.evaluates == run.run)
        latest = and_(CohortRow.run == RunRow.run, CohortRow.number == RunRow.cohort)
        for cohort in session.scalars(select(CohortRow).join(RunRow, latest).where(own_and_evaluation)):
            session.execute(
                _SHIFT,
                {
                    "of": cohort.run,
                    "of_cohort": cohort.number,
                    "opened_clock": _later(cohort.opened_clock, since, now),
                    "started_clock": None if cohort.started_clock is None else _later(cohort.started_clock, since, now),
                },
            )
        session.execute(_RESUME, {"of": run.run, "served": max(run.served, least_served(session, run.population))})
        found: str = run.run
    _log.info("run %s goes on", found)
    return found


def _later(clock: float, since: float, now: float) -> float:
    """A time as it would be without the pause; one that lies in it becomes its end."""
    return clock + max(0.0, now - max(since, clock))
