"""What operators are told about runs, as plain values."""

from __future__ import annotations

import math
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from edgefl.errors import RunError
from edgefl.wire.messages import Reason
from edgefl_server.aggregation import AssignmentState, RunSettings, finalise
from edgefl_server.storage.round_rows import Disposition, load_round, took_too_long
from edgefl_server.storage.runs import get_run, list_runs, metrics_of
from edgefl_server.storage.state import ServerState
from edgefl_server.storage.tables import AssignmentRow, DeviceRow, OutcomeRow, RoundRow, RunRow

__all__ = ["run_status", "runs_summary", "weights_of_round"]


def runs_summary(state: ServerState) -> list[dict[str, Any]]:
    """One entry per run, oldest first."""
    with state.database.read() as session:
        return [_summary(run) for run in list_runs(session)]


def run_status(state: ServerState, run_id: str) -> dict[str, Any]:
    """Everything about a run: settings, state, and each round with its outcomes and metrics.

    Raises:
        RunError: there is no such run.
    """
    with state.database.read() as session:
        run = get_run(session, run_id)
        rounds = session.scalars(select(RoundRow).where(RoundRow.run == run.run).order_by(RoundRow.number)).all()
        outcomes = _outcome_counts(session, run)
        devices = session.scalar(
            select(func.count()).select_from(DeviceRow).where(DeviceRow.population == run.population)
        )
        current = load_round(session, run, run.round)
        return {
            **_summary(run),
            "settings": run.settings,
            "model_hash": run.model_hash,
            "graph_hash": run.graph_hash,
            "layout_hash": run.layout_hash,
            "initial_weights_hash": run.initial_weights_hash,
            "weights_hash": run.weights_hash,
            "devices_enrolled": devices,
            "tasks_open": current.count(AssignmentState.OPEN),
            "history": [_round(run, row, outcomes.get(row.number, {}), state.clock()) for row in rounds],
        }


def weights_of_round(state: ServerState, run_id: str, number: int | None) -> tuple[str, int]:
    """The hash of the weights after a round, and its number; 0 stands for the initial ones, None for the latest.

    Raises:
        RunError: there is no such run or round, or the round has no weights.
    """
    with state.database.read() as session:
        run = get_run(session, run_id)
        done = [
            (row.number, row.weights_hash)
            for row in session.scalars(select(RoundRow).where(RoundRow.run == run.run).order_by(RoundRow.number))
            if row.weights_hash is not None
        ]
        versions = {0: run.initial_weights_hash, **dict(done)}
        wanted = max(versions) if number is None else number
        if wanted not in versions:
            raise RunError(
                f"Run {run_id} has no weights of round {wanted}.",
                hint=f"It has those of the rounds {', '.join(map(str, versions))}.",
            )
        return versions[wanted], wanted


def _summary(run: RunRow) -> dict[str, Any]:
    return {
        "run": run.run,
        "name": run.name,
        "population": run.population,
        "state": run.state,
        "why": run.why,
        "round": run.round,
        "rounds": run.settings["rounds"],
        "target": run.settings["target"],
        "created_at": run.created_at,
        "ended_at": run.ended_at,
    }


def _outcome_counts(session: Session, run: RunRow) -> dict[int, dict[str, Any]]:
    """Per round: outcomes by disposition and status, and the reasons of those that were not done."""
    counts: dict[int, dict[str, Any]] = {}
    rows = session.execute(
        select(OutcomeRow.round, OutcomeRow.disposition, OutcomeRow.status, OutcomeRow.reason, func.count())
        .where(OutcomeRow.run == run.run)
        .group_by(OutcomeRow.round, OutcomeRow.disposition, OutcomeRow.status, OutcomeRow.reason)
    )
    for number, disposition, status, reason, count in (*rows, *_out_of_time(session, run)):
        entry = counts.setdefault(number, {"by": {}, "reasons": {}})
        name = disposition if status == "done" else status
        entry["by"][name] = entry["by"].get(name, 0) + count
        if status != "done":
            entry["reasons"][reason] = entry["reasons"].get(reason, 0) + count
    return counts


def _out_of_time(session: Session, run: RunRow) -> list[tuple[int, str, str, str, int]]:
    """Tasks that took too long, as if their devices had said so: nobody sent an outcome for them."""
    rows = session.execute(
        select(AssignmentRow.round, func.count())
        .outerjoin(OutcomeRow, OutcomeRow.task_id == AssignmentRow.task_id)
        .where(
            AssignmentRow.run == run.run,
            took_too_long(RunSettings.from_json(run.settings)),
            AssignmentRow.state == AssignmentState.FAILED.value,
            OutcomeRow.task_id.is_(None),
        )
        .group_by(AssignmentRow.round)
    )
    return [(number, Disposition.NOTED, "failed", Reason.OUT_OF_TIME.name.lower(), count) for number, count in rows]


def _round(run: RunRow, row: RoundRow, counts: dict[str, Any], now: float) -> dict[str, Any]:
    names = ("accepted", "folded", "discarded", "declined", "failed")
    values = finalise(row.metric_sums, metrics_of(run))
    loss = values.pop("loss", None)
    return {
        "round": row.number,
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
        "base_weights_hash": row.base_weights_hash,
        "weights_hash": row.weights_hash,
        "opened_at": row.opened_at,
        "seconds": (row.ended_at or now) - row.opened_at,
    }
