"""A glance at a run: how it stands right now, from a few rows, however many rounds and devices it has."""

from __future__ import annotations

from typing import Any

from sqlalchemy import func, select
from sqlalchemy.exc import DatabaseError

from edgefl_server.aggregation import AssignmentState, RunSettings, devices_needed
from edgefl_server.storage.runs import find_run, readable_runs
from edgefl_server.storage.sessions import Session
from edgefl_server.storage.state import ServerState
from edgefl_server.storage.tables import (
    AssignmentRow,
    CentralRow,
    CohortRow,
    FoldRow,
    OutcomeRow,
    PopulationRow,
    RunRow,
    RunState,
)

__all__ = ["glance"]

_SHOW = "show the run"


def glance(state: ServerState, run_id: str) -> dict[str, Any]:
    """Says how a run stands, and the round under way: counts only, nothing of any one device.

    Returns:
        The run's name and state; of its latest round ``asked`` (tasks that were handed out), ``training`` (that devices
        have), ``arrived`` (outcomes that will be merged), ``reasons`` of those who gave up, by the reason, ``lost``
        (tasks that took too long or went to another device) and ``seconds`` since its first task; how many devices are
        ``enrolled`` and how many are ``needed`` at least; ``measured`` rises with each evaluation of a version.

    Raises:
        RunError: there is no such run.
    """
    with state.database.read() as session:
        found = find_run(session, run_id)
        ((_, run),) = readable_runs(state, session, RunRow.run == found)
        try:
            if run is not None:
                return _glance(state, session, run)
        except DatabaseError:
            raise
        except Exception as error:
            state.troubles.note(found, _SHOW, error, state.clock())
        return {"run": found, "readable": False, "name": "", "troubles": state.troubles.of(found)}


def _glance(state: ServerState, session: Session, run: RunRow) -> dict[str, Any]:
    cohort = session.get_one(CohortRow, (run.run, run.cohort))
    fold = session.get_one(FoldRow, (run.run, run.fold))
    states = session.execute(
        select(AssignmentRow.state, func.count())
        .where(AssignmentRow.run == run.run, AssignmentRow.fold == run.fold)
        .group_by(AssignmentRow.state)
    )
    tasks = {str(each.state): int(each[1]) for each in states}
    reasons: dict[str, int] = {
        f"{status}: {reason}".replace("_", " "): count
        for status, reason, count in session.execute(
            select(OutcomeRow.status, OutcomeRow.reason, func.count())
            .where(OutcomeRow.run == run.run, OutcomeRow.fold == run.fold, OutcomeRow.status != "done")
            .group_by(OutcomeRow.status, OutcomeRow.reason)
            .order_by(OutcomeRow.status, OutcomeRow.reason)
        )
    }
    enrolled = session.scalar(select(PopulationRow.devices).where(PopulationRow.population == run.population))
    evaluation = session.execute(
        select(RunRow.state, RunRow.fold, CohortRow.open, CohortRow.done)
        .join(CohortRow, (RunRow.run == CohortRow.run) & (RunRow.cohort == CohortRow.number))
        .where(RunRow.evaluates == run.run)
    ).first()
    central = session.scalar(select(func.count()).where(CentralRow.run == run.run))
    started = cohort.started_clock
    return {
        "run": run.run,
        "readable": True,
        "name": run.name,
        "population": run.population,
        "kind": run.settings.get("kind", "train"),
        "state": run.state,
        "why": run.why,
        "round": run.fold,
        "rounds": run.settings["rounds"],
        "target": run.settings["target"],
        "version": run.version,
        "round_state": fold.state,
        "round_why": fold.why,
        "asked": sum(tasks.values()),
        "training": cohort.open,
        "arrived": cohort.done,
        "reasons": reasons,
        "lost": sum(tasks.get(each.value, 0) for each in (AssignmentState.OUT_OF_TIME, AssignmentState.ABANDONED)),
        "seconds": None if started is None else max(0.0, state.clock() - max(started, fold.opened_clock)),
        "enrolled": enrolled or 0,
        "needed": devices_needed(RunSettings.from_json(run.settings)),
        "evaluating": {"open": evaluation.open, "done": evaluation.done}
        if evaluation is not None and evaluation.state == RunState.ACTIVE
        else None,
        "measured": (central or 0) + (0 if evaluation is None else evaluation.fold),
        "created_at": run.created_at,
        "ended_at": run.ended_at,
        "troubles": state.troubles.of(run.run),
    }
