"""The lineage of a run's weights: from which version each came, by what they differ, and going back to one."""

from __future__ import annotations

import logging
import math
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import bindparam, select, update

from edgefl.errors import InvalidSettingError, RunError
from edgefl.model_file import ModelFile
from edgefl_server.aggregation import FoldState, Next, Progress, RunSettings, finalise
from edgefl_server.storage.central import central_of
from edgefl_server.storage.changes import stop_folds
from edgefl_server.storage.runs import RunStateError, add_version, get_run, kept_by_devices, metrics_of, move_on
from edgefl_server.storage.sessions import Session
from edgefl_server.storage.state import ServerState, get_vector
from edgefl_server.storage.statements import Statement
from edgefl_server.storage.tables import FoldRow, RunRow, RunState, VersionRow, runs

__all__ = ["diff_versions", "roll_back", "run_history"]

_log = logging.getLogger(__name__)
_SET = Statement(update(runs).where(runs.c.run == bindparam("of")).values(settings=bindparam("settings")))


def run_history(state: ServerState, run_id: str) -> dict[str, Any]:
    """The versions of a run's weights, oldest first: from which one each came, and by what.

    Raises:
        RunError: there is no such run.
    """
    with state.database.read() as session:
        run = get_run(session, run_id)
        rows = session.execute(
            select(VersionRow, FoldRow)
            .outerjoin(FoldRow, (FoldRow.run == VersionRow.run) & (FoldRow.number == VersionRow.fold))
            .where(VersionRow.run == run.run)
            .order_by(VersionRow.number)
        ).all()
        evaluated = _evaluated(session, run.run)
        central = {each["version"]: each["metrics"] for each in central_of(session, run.run)["central"]}
        return {
            "run": run.run,
            "name": run.name,
            "state": run.state,
            "version": run.version,
            "versions": [
                {
                    **_version(version, fold),
                    "evaluated": evaluated.get(version.number, {}),
                    "central": central.get(version.number, {}),
                }
                for version, fold in rows
            ],
        }


def _evaluated(session: Session, run_id: str) -> dict[int, dict[str, float]]:
    """Loss and metrics of the versions that devices have evaluated."""
    own = session.scalars(select(RunRow).where(RunRow.evaluates == run_id)).one_or_none()
    if own is None:
        return {}
    done = session.execute(
        select(FoldRow.version, FoldRow.metric_sums)
        .where(FoldRow.run == own.run, FoldRow.state == FoldState.DONE.value)
        .order_by(FoldRow.number)
    )
    return {row.version: finalise(row.metric_sums, metrics_of(own)) for row in done}


def _version(version: VersionRow, fold: FoldRow | None) -> dict[str, Any]:
    merged = fold is not None and fold.state == FoldState.DONE.value
    figures: dict[str, float] = fold.diagnostics if fold is not None and merged else {}
    outcomes = figures.get("outcomes")
    return {
        "version": version.number,
        "parent": version.parent,
        "by": "start" if version.number == 0 else "fold" if merged else "rollback",
        "round": version.fold,
        "made_at": version.made_at,
        "devices": fold.devices if fold is not None and merged else None,
        "outcomes": None if outcomes is None else int(outcomes),
        "num_examples": fold.num_examples if fold is not None and merged else None,
        "bytes_up": fold.bytes_up if fold is not None and merged else None,
        "bytes_down": fold.bytes_down if fold is not None and merged else None,
        "update_norm": figures.get("update_norm"),
        "staleness": figures.get("staleness"),
        "weights_hash": version.weights_hash,
    }


def diff_versions(state: ServerState, run_id: str, before: int, after: int) -> dict[str, Any]:
    """Says how two versions of a run's weights differ, parameter by parameter.

    Returns:
        For all of them together and for each: the L2 norms of the earlier and of the difference, and the largest
        difference of an element.

    Raises:
        RunError: there is no such run or version.
        DamagedBlobError: the weights are damaged.
    """
    with state.database.read() as session:
        run = get_run(session, run_id)
        hashes = [_of(session, run, number).weights_hash for number in (before, after)]
        model_hash = run.model_hash
        found: str = run.run
    first, second = (get_vector(state, each) for each in hashes)
    layout = ModelFile(state.models.get(model_hash)).manifest.layout
    old, new = layout.views(first), layout.views(second)
    return {
        "run": found,
        "from": before,
        "to": after,
        **_difference(first, second),
        "parameters": [
            {"parameter": name, "shape": list(old[name].shape), **_difference(old[name], new[name])}
            for name in layout.names
        ],
    }


def _difference(old: NDArray[np.float32], new: NDArray[np.float32]) -> dict[str, float]:
    change = new.astype(np.float64) - old
    return {
        "norm": math.sqrt(float(np.sum(np.square(old, dtype=np.float64)))),
        "difference": math.sqrt(float(np.sum(np.square(change)))),
        "largest": float(np.abs(change).max(initial=0.0)),
    }


def roll_back(state: ServerState, run_id: str, number: int) -> str:
    """Lets a run go on from an earlier version; what its open round has accepted is discarded, and the round repeated.

    Of a buffer, what is full and not merged yet is discarded and repeated as well. The earlier weights, with what the
    strategy kept then, become the newest version, whose parent the earlier one is: nothing is forgotten, and one can go
    back to what was gone back from.

    Args:
        state: the server's.
        run_id: its id or name.
        number: the version.

    Returns:
        The run's id.

    Raises:
        RunError: there is no such run or version.
        RunStateError: the run is over.
        InvalidSettingError: devices keep something of what would be undone.
        DamagedBlobError: the weights are damaged.
    """
    with state.database.read() as session:
        run = get_run(session, run_id)
        keeps = kept_by_devices(state, run)
        found: str = run.run
        wanted = _of(session, run, number)
        weights_hash, slots = wanted.weights_hash, dict(wanted.slots)
    if keeps:
        raise InvalidSettingError(
            f"Run {found} cannot go back: its devices keep {keeps} of the versions that would be undone.",
            hint="Create a new run from those weights: `edgefl run weights`, then `edgefl run create --weights FILE`.",
        )
    for digest in (weights_hash, *slots.values()):
        get_vector(state, digest)
    with state.database.write() as session:
        run = get_run(session, found)
        if run.state not in RunState.GOING_ON:
            raise RunStateError(
                f"Run {found} cannot go back: it is {run.state}.", hint="Give it more rounds first: --rounds +N."
            )
        now, newest = state.now(), run.version + 1
        stopped = stop_folds(session, found, f"rolled back to version {number}", now)
        add_version(session, found, newest, run.fold, weights_hash, slots, now, parent=number)
        settings = RunSettings.from_json(run.settings)
        earlier = settings.noting(settings.rounds, newest)
        more = replace(settings, rounds=settings.rounds + stopped, earlier_rounds=earlier)
        session.execute(_SET, {"of": found, "settings": {**run.settings, **more.to_json()}})
        move_on(session, found, Progress(Next.COHORT), now)
    state.keep_generation()
    _log.info("run %s: rolled back to version %d", found, number)
    return found


def _of(session: Session, run: RunRow, number: int) -> VersionRow:
    row = session.get(VersionRow, (run.run, number))
    if row is None:
        raise RunError(
            f"Run {run.run} has no version {number}.",
            hint=f"It has those from 0 to {run.version}.",
        )
    return row
