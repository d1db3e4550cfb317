"""Evaluations of a run's versions: rows of a run of their own, so that all that holds for training holds for them.

That run has a cohort and a fold for each version that is evaluated, and rests in between. It never ends the one that it
evaluates, and outlives it by the evaluation of the last version.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from typing import Any

from sqlalchemy import bindparam, insert, select, update

from edgefl_server.aggregation import RunSettings, evaluation_settings, next_evaluation
from edgefl_server.storage.changes import open_cohort, stop_folds
from edgefl_server.storage.clock import Moment
from edgefl_server.storage.sessions import Session
from edgefl_server.storage.statements import Statement
from edgefl_server.storage.tables import RunRow, RunState, runs, versions

__all__ = ["add_evaluation", "evaluate_due", "evaluated_by", "rest", "stop_evaluation", "wake"]

_GOING_ON = (RunState.ACTIVE, RunState.RESTING)
_OVER = (RunState.DONE, RunState.FAILED, RunState.STOPPED)
_OF = runs.c.run == bindparam("of")
_EVALUATES = Statement(select(runs.c.evaluates).where(_OF))
_RESTING = Statement(
    select(runs.c.run, runs.c.version, runs.c.cohort).where(
        runs.c.evaluates == bindparam("of"), runs.c.state == RunState.RESTING
    )
)
_EVALUATED = Statement(select(RunRow.state, RunRow.version, RunRow.settings).where(_OF))
_VERSION = Statement(
    select(versions.c.weights_hash).where(versions.c.run == bindparam("of"), versions.c.number == bindparam("number"))
)
_ADD_VERSION = Statement(insert(versions))
_BEGIN = Statement(update(runs).where(_OF).values(state=RunState.ACTIVE, version=bindparam("version")))
_REST = Statement(update(runs).where(_OF, runs.c.state == RunState.ACTIVE).values(state=RunState.RESTING))
_WAKE = Statement(
    update(runs)
    .where(runs.c.evaluates == bindparam("of"), runs.c.state == RunState.DONE)
    .values(state=RunState.RESTING, why="", ended_at=None)
)
_END = Statement(
    update(runs).where(_OF).values(state=bindparam("state"), why=bindparam("why"), ended_at=bindparam("ended_at"))
)


def add_evaluation(session: Session, of: RunRow, settings: RunSettings, now: Moment) -> None:
    """Adds what evaluates a run that has just been created, where its settings want it; it rests."""
    if not settings.evaluate_every:
        return
    shared = ("population", "model_hash", "graph_hash", "layout_hash", "weight_size", "statistic_size")
    session.add(
        RunRow(
            run=secrets.token_hex(4),
            name="",
            state=RunState.RESTING,
            why="",
            settings=evaluation_settings(settings).to_json(),
            metrics=of.metrics,
            limits=of.limits,
            version=0,
            cohort=0,
            fold=0,
            accepted=0,
            served=0,
            created_at=now.date,
            created_clock=now.clock,
            evaluates=of.run,
            **{name: getattr(of, name) for name in shared},
        )
    )
    session.flush()


def evaluated_by(session: Session, run_id: str) -> str:
    """The run whose versions a run evaluates; empty: it stands for itself."""
    return session.scalar(_EVALUATES, {"of": run_id}) or ""


def evaluate_due(session: Session, run_id: str, now: Moment) -> None:
    """Begins the next evaluation of a run, where one is due and none is under way; ends them after the last version."""
    own = session.execute(_RESTING, {"of": run_id}).one_or_none()
    if own is None:
        return
    of = session.execute(_EVALUATED, {"of": run_id}).one()
    over = of.state in _OVER
    every = RunSettings.from_json(of.settings).evaluate_every
    due = next_evaluation(every, own.version if own.cohort else None, of.version, over=over)
    if due is None:
        if over:
            session.execute(_END, {"of": own.run, "state": RunState.DONE, "why": "", "ended_at": now.date})
        return
    digest = session.scalar(_VERSION, {"of": run_id, "number": due})
    added: Mapping[str, Any] = {"run": own.run, "number": due, "fold": 0, "weights_hash": digest, "slots": {}}
    session.execute(_ADD_VERSION, {**added, "parent": None, "made_at": now.date})
    session.execute(_BEGIN, {"of": own.run, "version": due})
    open_cohort(session, own.run, now)


def rest(session: Session, own: str) -> None:
    """Says that what a run of evaluations worked for is over, whatever came of it."""
    session.execute(_REST, {"of": own})


def wake(session: Session, run_id: str) -> None:
    """Lets the evaluations of a run go on that was over and is not any more."""
    session.execute(_WAKE, {"of": run_id})


def stop_evaluation(session: Session, run_id: str, why: str, now: Moment) -> bool:
    """Ends the evaluations of a run that an operator stops or that failed; False: there was nothing to end."""
    found = session.execute(select(RunRow.run, RunRow.state).where(RunRow.evaluates == run_id)).all()
    going_on = [run for run, state in found if state in _GOING_ON]
    for own in going_on:
        if (own, RunState.ACTIVE) in {(run, state) for run, state in found}:
            stop_folds(session, own, why, now)
        session.execute(_END, {"of": own, "state": RunState.STOPPED, "why": why, "ended_at": now.date})
    return bool(going_on)
