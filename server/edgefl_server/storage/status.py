"""Tells operators about runs, in plain values."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from sqlalchemy import func, or_, select
from sqlalchemy.exc import DatabaseError

from edgefl.errors import RunError
from edgefl.wire.messages import Reason
from edgefl_server.aggregation import AssignmentState, FoldState, RunSettings, devices_needed, finalise
from edgefl_server.dates import date_and_time
from edgefl_server.storage.central import central_of
from edgefl_server.storage.identities import doubled_devices
from edgefl_server.storage.orphans import count_unrecorded
from edgefl_server.storage.runs import find_run, get_run, metrics_of, readable_runs
from edgefl_server.storage.sessions import Session
from edgefl_server.storage.state import SECONDS_PER_DAY, ServerState
from edgefl_server.storage.tables import (
    AssignmentRow,
    CohortRow,
    DeviceRow,
    Disposition,
    FoldRow,
    OutcomeRow,
    RunRow,
    RunState,
    VersionRow,
)

__all__ = ["run_status", "runs_summary", "warnings", "weights_of_round"]

_OUT_OF_TIME = Reason.OUT_OF_TIME.name.lower()
_SHOW = "show the run"
_TELL_SECONDS = 7 * SECONDS_PER_DAY
"""A device that existed twice is told of for so long."""


def runs_summary(state: ServerState) -> list[dict[str, Any]]:
    """One entry per run, oldest first; of one that cannot be read, what can."""
    with state.database.read() as session:
        return [
            _told(state, session, run_id, run, lambda run: _summary(state, run))
            for run_id, run in readable_runs(state, session, RunRow.evaluates == "")
        ]


def warnings(state: ServerState, population: str | None = None) -> list[str]:
    """Lists what operators should look at: devices that exist twice, signs of lost entries, what cannot be done."""
    with state.database.read() as session:
        doubled = doubled_devices(session, state.date() - _TELL_SECONDS, population)
        unrecorded = count_unrecorded(state, session, population)
    told = [
        f"device {each['device']} of {each['population']} exists twice, which loses work: "
        f"give one of the two an empty state folder (last seen {date_and_time(each['doubled_at'])} UTC)"
        for each in doubled
    ]
    if unrecorded:
        told.append(
            f"{unrecorded} of the outcomes that were accepted, or were arriving when the server ended, are not known "
            f"to this database: if it is not the newest one, put that back; their files are in {state.orphans}"
        )
    return told + state.troubles.of("")


def run_status(state: ServerState, run_id: str) -> dict[str, Any]:
    """Everything about a run: settings, state, and each round with its outcomes and metrics.

    Raises:
        RunError: there is no such run.
    """
    with state.database.read() as session:
        found = find_run(session, run_id)
        ((_, run),) = readable_runs(state, session, RunRow.run == found)
        status = _told(state, session, found, run, lambda run: _status(state, session, run))
    return {**status, "warnings": [*status.get("warnings", ()), *warnings(state, status["population"])]}


def _told(
    state: ServerState, session: Session, run_id: str, run: RunRow | None, tell: Callable[[RunRow], dict[str, Any]]
) -> dict[str, Any]:
    """Tells of a run; of one that cannot be read, what can be told."""
    if run is None:
        return _unreadable(state, session, run_id)
    try:
        told = tell(run)
    except DatabaseError:
        raise
    except Exception as error:
        state.troubles.note(run_id, _SHOW, error, state.clock())
        return _unreadable(state, session, run_id)
    state.troubles.clear(run_id, _SHOW)
    return told


def _status(state: ServerState, session: Session, run: RunRow) -> dict[str, Any]:
    hashes = _weights(session, run)
    enrolled = select(func.count()).where(DeviceRow.population == run.population, DeviceRow.removed_at.is_(None))
    devices = session.scalar(enrolled)
    cohort = session.get_one(CohortRow, (run.run, run.cohort))
    evaluated = _evaluated(state, session, run)
    return {
        **_summary(state, run),
        "settings": run.settings,
        "model_hash": run.model_hash,
        "graph_hash": run.graph_hash,
        "layout_hash": run.layout_hash,
        "initial_weights_hash": hashes[0],
        "weights_hash": hashes[run.version],
        "devices_enrolled": devices,
        "devices_needed": devices_needed(RunSettings.from_json(run.settings)),
        "tasks_open": cohort.open,
        "history": _history(state, session, run),
        **evaluated,
        "warnings": [
            *_waiting(run, evaluated["evaluating"], devices or 0),
            *_without_root(state, session, run, cohort),
        ],
        **central_of(session, run.run),
    }


def _waiting(run: RunRow, evaluating: bool, enrolled: int) -> list[str]:
    """Says that an evaluation waits for more devices than there are: nothing else would, once its run is over."""
    wanted = run.settings.get("evaluate_cohort") or run.settings["target"]
    if not evaluating or wanted <= enrolled or run.state in RunState.GOING_ON:  # it has time to come by more
        return []
    return [
        f"a version is to be evaluated on {wanted} devices, and {enrolled} are enrolled in {run.population}: it waits "
        "for more, until the run is stopped"
    ]


def _without_root(state: ServerState, session: Session, run: RunRow, cohort: CohortRow) -> list[str]:
    """Says that a round has all that it wants but the update of its root device, which is not at it."""
    fold = session.get_one(FoldRow, (run.run, run.fold))
    if not _root(run) or cohort.done < run.settings["target"] or not FoldState(fold.state).takes_outcomes:
        return []
    at_it = select(AssignmentRow.task_id).where(
        AssignmentRow.run == run.run,
        AssignmentRow.cohort == run.cohort,
        AssignmentRow.device == _root(run),
        AssignmentRow.state == AssignmentState.OPEN.value,
        AssignmentRow.leased_until_clock > state.clock(),
    )
    if session.scalar(at_it.limit(1)) is not None:
        return []
    return [f"round {run.fold} waits for its root device {_root(run)}, which is not at work on it"]


def _weights(session: Session, run: RunRow) -> dict[int, str]:
    """Hashes of the weights, by version."""
    found = session.execute(select(VersionRow.number, VersionRow.weights_hash).where(VersionRow.run == run.run))
    return {row.number: row.weights_hash for row in found}


def _history(state: ServerState, session: Session, run: RunRow) -> list[dict[str, Any]]:
    """A run's folds, oldest first."""
    folds = session.scalars(select(FoldRow).where(FoldRow.run == run.run).order_by(FoldRow.number)).all()
    hashes = _weights(session, run)
    versions = session.execute(select(VersionRow.fold, VersionRow.weights_hash).where(VersionRow.run == run.run))
    made = {row.fold: row.weights_hash for row in versions}
    outcomes, started = _outcome_counts(session, run), _started(session, run)
    return [
        {
            **_round(run, row, (hashes[row.version], made.get(row.number)), outcomes.get(row.number, {})),
            "seconds": _seconds(row, started, state.clock()),
        }
        for row in folds
    ]


def _evaluated(state: ServerState, session: Session, run: RunRow) -> dict[str, Any]:
    """Returns the evaluations of a run, oldest first, and whether one is under way."""
    evaluation = session.scalars(select(RunRow).where(RunRow.evaluates == run.run)).one_or_none()
    if evaluation is None:
        return {"evaluations": [], "evaluating": False}
    # Nothing of it is trained: there are no weights before and after.
    without = ("round", "base_weights_hash", "weights_hash")
    history = _history(state, session, evaluation)
    return {
        "evaluations": [{name: each[name] for name in each if name not in without} for each in history],
        "evaluating": evaluation.state == RunState.ACTIVE,
        "evaluation_run": evaluation.run,
    }


def weights_of_round(state: ServerState, run_id: str, number: int | None) -> tuple[str, int]:
    """The hash of the weights after a round, and its number; 0 stands for the initial ones, None for the latest.

    Raises:
        RunError: there is no such run or round, or the round has no weights.
    """
    with state.database.read() as session:
        run = get_run(session, run_id)
        made = select(VersionRow.fold, VersionRow.weights_hash).where(VersionRow.run == run.run)
        versions = {each.fold: each.weights_hash for each in session.execute(made.order_by(VersionRow.number))}
        wanted = max(versions) if number is None else number
        if wanted not in versions:
            raise RunError(
                f"Run {run_id} has no weights of round {wanted}.",
                hint=f"It has those of the rounds {', '.join(map(str, versions))}.",
            )
        return versions[wanted], wanted


def _summary(state: ServerState, run: RunRow) -> dict[str, Any]:
    return {
        "run": run.run,
        "name": run.name,
        "population": run.population,
        "state": run.state,
        "why": run.why,
        "round": run.fold,
        "rounds": run.settings["rounds"],
        "target": run.settings["target"],
        "created_at": run.created_at,
        "ended_at": run.ended_at,
        "troubles": state.troubles.of(run.run),
    }


def _unreadable(state: ServerState, session: Session, run_id: str) -> dict[str, Any]:
    """Tells what can be told of a run whose settings, model or rounds cannot be read."""
    columns = (RunRow.name, RunRow.population, RunRow.state, RunRow.why, RunRow.fold)
    name, population, run_state, why, number = session.execute(select(*columns).where(RunRow.run == run_id)).one()
    weights_hash = session.scalar(
        select(VersionRow.weights_hash)
        .join(RunRow, (RunRow.run == VersionRow.run) & (RunRow.version == VersionRow.number))
        .where(RunRow.run == run_id)
    )
    created_at, ended_at = session.execute(select(RunRow.created_at, RunRow.ended_at).where(RunRow.run == run_id)).one()
    return {
        "run": run_id,
        "name": name,
        "population": population,
        "state": run_state,
        "why": why,
        "round": number,
        "rounds": None,
        "target": None,
        "created_at": created_at,
        "ended_at": ended_at,
        "troubles": state.troubles.of(run_id),
        "settings": {},
        "weights_hash": weights_hash,
        "devices_enrolled": None,
        "devices_needed": None,
        "tasks_open": None,
        "history": [],
        "evaluations": [],
        "evaluating": False,
        "central": [],
        "central_pending": False,
    }


def _outcome_counts(session: Session, run: RunRow) -> dict[int, dict[str, Any]]:
    """Counts, for each round, outcomes by disposition and status, and the reasons of those that were not done."""
    counts: dict[int, dict[str, Any]] = {}

    def add(number: int, disposition: str, status: str, reason: str, count: int) -> None:
        entry = counts.setdefault(number, {"by": {}, "reasons": {}})
        name = disposition if status == "done" else status
        entry["by"][name] = entry["by"].get(name, 0) + count
        if status != "done":
            entry["reasons"][reason] = entry["reasons"].get(reason, 0) + count

    rows = session.execute(
        select(OutcomeRow.fold, OutcomeRow.disposition, OutcomeRow.status, OutcomeRow.reason, func.count())
        # A round counts the updates that it wants; that of the root device is none of them, and only missed.
        .where(OutcomeRow.run == run.run, or_(OutcomeRow.device != _root(run), OutcomeRow.status != "done"))
        .group_by(OutcomeRow.fold, OutcomeRow.disposition, OutcomeRow.status, OutcomeRow.reason)
    )
    for number, disposition, status, reason, count in (*rows, *_out_of_time(session, run)):
        add(number, disposition, status, reason, count)
    for number, pruned in session.execute(select(FoldRow.number, FoldRow.pruned).where(FoldRow.run == run.run)):
        for status, reasons in pruned.items():
            for reason, dispositions in reasons.items():
                for disposition, count in dispositions.items():
                    add(number, disposition, status, reason, count)
    return counts


def _root(run: RunRow) -> str:
    return str(run.settings.get("root_device") or "")


def _out_of_time(session: Session, run: RunRow) -> list[tuple[int, str, str, str, int]]:
    """Tasks that took too long, as if their devices had said so: nobody sent an outcome for them."""
    rows = session.execute(
        select(AssignmentRow.fold, func.count())
        .where(AssignmentRow.run == run.run, AssignmentRow.state == AssignmentState.OUT_OF_TIME.value)
        .group_by(AssignmentRow.fold)
    )
    return [(number, Disposition.NOTED, "failed", _OUT_OF_TIME, count) for number, count in rows]


def _started(session: Session, run: RunRow) -> list[tuple[int, float | None]]:
    """The number of each cohort and when its first task was handed out, the latest first."""
    cohort = CohortRow.number, CohortRow.started_clock
    found = session.execute(select(*cohort).where(CohortRow.run == run.run).order_by(CohortRow.number.desc()))
    return [(number, clock) for number, clock in found]


def _seconds(row: FoldRow, started: list[tuple[int, float | None]], now: float) -> float:
    """Returns the seconds that a round took from its first task on: while no device comes, none of its time is gone."""
    first = next((clock for number, clock in started if number <= row.number), None)
    if first is None:
        return 0.0
    return max(0.0, (now if row.ended_clock is None else row.ended_clock) - max(first, row.opened_clock))


def _round(run: RunRow, row: FoldRow, weights: tuple[str, str | None], counts: dict[str, Any]) -> dict[str, Any]:
    """A round, as people call a fold; `weights` are the hashes of those before it and after it."""
    names = ("accepted", "folded", "stale", "discarded", "damaged", "declined", "failed")
    values = finalise(row.metric_sums, metrics_of(run))
    loss = values.pop("loss", None)
    return {
        "round": row.number,
        "version": row.version,
        "state": row.state,
        "why": row.why,
        "outcomes": {name: counts.get("by", {}).get(name, 0) for name in names},
        "reasons": counts.get("reasons", {}),
        "num_examples": row.num_examples,
        "loss": loss,
        "metrics": values,
        "metric_sums": {
            name: elements for name, elements in row.metric_sums.items() if all(map(math.isfinite, elements))
        },
        "diagnostics": row.diagnostics,
        "findings": row.findings,
        "base_weights_hash": weights[0],
        "weights_hash": weights[1],
        "opened_at": row.opened_at,
    }
