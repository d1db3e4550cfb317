"""Runs: create, list, stop, what the next round is, where their weights are."""

from __future__ import annotations

import logging
import re
import secrets
from collections.abc import Sequence
from dataclasses import asdict, replace

import numpy as np
from sqlalchemy import select
from sqlalchemy.orm import Session

from edgefl.errors import InvalidSettingError, RunError
from edgefl.manifest import Metric
from edgefl.model_file import ModelFile
from edgefl_server.aggregation import ModelLimits, RoundState, RunSettings, settle, strategy_for
from edgefl_server.storage.identities import check_population
from edgefl_server.storage.round_rows import RunState, load_round, save_round
from edgefl_server.storage.state import ServerState, put_vector
from edgefl_server.storage.tables import RoundRow, RunRow

__all__ = ["create_run", "fail_run_if_hopeless", "get_run", "list_runs", "metrics_of", "open_next_round", "stop_run"]

_log = logging.getLogger(__name__)
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_FAILED_ROUNDS_IN_A_ROW = 3
"""After so many the run gives up: what fails every device three times will fail them again."""


def create_run(state: ServerState, model: bytes, population: str, settings: RunSettings, name: str = "") -> str:
    """Starts a run from the weights in a model file.

    Args:
        state: the server's.
        model: the file's bytes.
        population: whose devices train.
        settings: with seed 0 a random one is drawn and kept.
        name: for people, who may use it instead of the id.

    Returns:
        The run's id.

    Raises:
        ModelFileError: the bytes are no intact model file.
        InvalidSettingError: every device would decline the tasks, the file cannot take part in the strategy or holds
            NaN, or a name has another form.
        StorageError: no space.
    """
    check_population(population)
    if name and not _NAME.fullmatch(name):
        raise InvalidSettingError(
            f"--name expects 1 to 64 letters, digits, dots, dashes and underscores, got {name!r:.80}."
        )
    file = ModelFile(model)
    file.verify()
    manifest = file.manifest
    settings = settle(settings, manifest)
    initial = file.initial_weights()
    if not np.isfinite(initial).all():
        raise InvalidSettingError(
            "The model's initial weights hold NaN or infinity: no device would take them.",
            hint="Convert it again from weights that are finite.",
        )
    if settings.seed == 0:
        settings = replace(settings, seed=1 + secrets.randbelow(2**62))
    model_hash = state.models.put(model)
    first = strategy_for(settings, manifest.layout.weight_size).init(initial)
    weights_hash = put_vector(state, first.weights)
    slots = {slot: put_vector(state, vector) for slot, vector in first.slots.items()}
    now = state.clock()
    run = RunRow(
        run=secrets.token_hex(4),
        name=name,
        population=population,
        state=RunState.ACTIVE,
        why="",
        settings=settings.to_json(),
        model_hash=model_hash,
        graph_hash=manifest.graph_hash,
        layout_hash=manifest.layout_hash,
        weight_size=manifest.layout.weight_size,
        statistic_size=manifest.layout.statistic_size,
        metrics=[asdict(metric) for metric in manifest.metrics],
        limits=ModelLimits.of(manifest).to_json(),
        initial_weights_hash=weights_hash,
        weights_hash=weights_hash,
        slots=slots,
        round=0,
        created_at=now,
    )
    with state.database.write() as session:
        session.add(run)
        session.flush()
        open_next_round(session, run, now)
    _log.info("run %s created: %d rounds of %d outcomes from %s", run.run, settings.rounds, settings.target, population)
    return run.run


def open_next_round(session: Session, run: RunRow, now: float) -> None:
    """Opens the round after the current one, or ends the run when that was the last."""
    settings = RunSettings.from_json(run.settings)
    if run.round >= settings.rounds:
        run.state, run.ended_at = RunState.DONE, now
        return
    run.round += 1
    session.add(
        RoundRow(
            run=run.run,
            number=run.round,
            state=RoundState.SELECTING.value,
            why="",
            base_weights_hash=run.weights_hash,
            base_slots=run.slots,
            opened_at=now,
            metric_sums={},
            diagnostics={},
        )
    )
    session.flush()


def fail_run_if_hopeless(session: Session, run: RunRow, now: float) -> None:
    """Goes on after a failed round: with the next one, or with the end of the run when too many failed in a row."""
    _log.warning("run %s: round %d failed: %s", run.run, run.round, session.get_one(RoundRow, (run.run, run.round)).why)
    latest = session.scalars(
        select(RoundRow).where(RoundRow.run == run.run).order_by(RoundRow.number.desc()).limit(_FAILED_ROUNDS_IN_A_ROW)
    ).all()
    failed = [row for row in latest if row.state == RoundState.FAILED.value]
    settings = RunSettings.from_json(run.settings)
    hopeless = len(failed) == _FAILED_ROUNDS_IN_A_ROW
    done = select(RoundRow.number).where(RoundRow.run == run.run, RoundRow.state == RoundState.DONE.value).limit(1)
    if hopeless or (run.round >= settings.rounds and session.scalar(done) is None):
        run.state, run.ended_at = RunState.FAILED, now
        run.why = f"round {latest[0].number} failed: {latest[0].why}"
        if hopeless:
            run.why = f"{_FAILED_ROUNDS_IN_A_ROW} rounds in a row failed; {run.why}"
        return
    open_next_round(session, run, now)


def stop_run(state: ServerState, run_id: str, why: str = "stopped by the operator") -> bool:
    """Ends a run now; what its open round has accepted is discarded.

    Returns:
        False when the run had ended before.

    Raises:
        RunError: there is no such run.
    """
    with state.database.write() as session:
        run = get_run(session, run_id)
        if run.state != RunState.ACTIVE:
            return False
        now = state.clock()
        before = load_round(session, run, run.round)
        save_round(session, run, run.round, before, before.stop(why), now)
        run.state, run.why, run.ended_at = RunState.STOPPED, why, now
    return True


def get_run(session: Session, run_id: str) -> RunRow:
    """A run by its id, or by its name when only one has it.

    Raises:
        RunError: there is none, or several have the name.
    """
    run = session.get(RunRow, run_id)
    if run is not None:
        return run
    named = session.scalars(select(RunRow).where(RunRow.name == run_id)).all()
    if len(named) > 1:
        ids = ", ".join(each.run for each in named)
        raise RunError(f"{len(named)} runs are named {run_id!r}.", hint=f"Use one of the ids {ids}.")
    if not named:
        raise RunError(f"There is no run {run_id!r:.80}.", hint="`edgefl run list` names all runs.")
    return named[0]


def list_runs(session: Session) -> Sequence[RunRow]:
    """All runs, oldest first."""
    return session.scalars(select(RunRow).order_by(RunRow.created_at, RunRow.run)).all()


def metrics_of(run: RunRow) -> tuple[Metric, ...]:
    """The metrics of a run's model."""
    return tuple(
        Metric(each["name"], each["finaliser"], tuple(each["states"]), each.get("settings", {})) for each in run.metrics
    )
