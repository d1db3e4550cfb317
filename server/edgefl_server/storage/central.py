"""Evaluations on data that the operator holds: which versions are to be evaluated, and what was found.

What is still to be done follows from the rows: nothing has to be taken up again after a crash. No run waits for them.
"""

from __future__ import annotations

import io
import logging
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import delete, insert, select

from edgefl.errors import InvalidSettingError
from edgefl.wire.words import is_hash
from edgefl_server.aggregation import RunSettings, SettingError, is_due
from edgefl_server.storage.sessions import Session
from edgefl_server.storage.state import ServerState
from edgefl_server.storage.tables import CentralRow, RunRow, RunState, VersionRow

__all__ = ["CentralWork", "central_of", "keep_central", "keep_data", "next_central", "require_data"]

_log = logging.getLogger(__name__)
_NPZ = "np.savez writes one, with the arrays x and y."
_OVER = (RunState.DONE, RunState.FAILED, RunState.STOPPED)


@dataclass(frozen=True)
class CentralWork:
    """A version that is to be evaluated.

    Attributes:
        run: its run.
        version: its number.
        model: the model file.
        weights: those of the version: little-endian float32.
        data: the operator's ``.npz``.
    """

    run: str
    version: int
    model: Path
    weights: Path
    data: Path


def keep_data(state: ServerState, data: bytes) -> str:
    """Keeps data of the operator's, and returns its hash.

    Args:
        state: the server's.
        data: an ``.npz``.

    Raises:
        SettingError: it is none.
        StorageError: no space.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as file:
            members = file.namelist()
    except (zipfile.BadZipFile, OSError, ValueError) as error:
        raise SettingError("{evaluate_on} expects an .npz file, got something else.", hint=_NPZ) from error
    if not members or not all(each.endswith(".npy") for each in members):
        raise SettingError("{evaluate_on} expects an .npz file, got a .zip file without arrays.", hint=_NPZ)
    return state.data.put(data)


def require_data(state: ServerState, digest: str) -> None:
    """Makes sure that data is here which a run is to be evaluated on.

    Raises:
        InvalidSettingError: it is not.
    """
    if not is_hash(digest) or state.data.path(digest) is None:
        raise InvalidSettingError(f"There is no data {digest:.80}.", hint="Send it first: POST /v1/data.")


def next_central(state: ServerState) -> CentralWork | None:
    """The oldest version that is due and was not evaluated, of the run that was created first; None: there is none.

    One of which a file is gone is noted as failed, and nobody waits for it.
    """
    while (due := _first_due(state)) is not None:
        run_id, number, row = due
        model, weights = state.models.path(row.model_hash), state.weights.path(row.weights_hash)
        data = state.data.path(row.evaluation_data)
        if model is not None and weights is not None and data is not None:
            return CentralWork(run_id, number, model, weights, data)
        files = {"its weights": weights, "the model file": model, "the data": data}
        gone = " and ".join(name for name, path in files.items() if path is None)
        keep_central(state, run_id, number, {}, 0, f"gone from the server's folder: {gone}")
    return None


def keep_central(
    state: ServerState, run_id: str, version: int, metrics: Mapping[str, float], examples: int, why: str = ""
) -> None:
    """Keeps what came of an evaluation.

    Args:
        state: the server's.
        run_id: the run.
        version: that was evaluated.
        metrics: by name, finite; nothing where it failed.
        examples: of the data.
        why: it failed; empty: it did not.
    """
    row = {
        "run": run_id,
        "version": version,
        "state": "failed" if why else "done",
        "why": why[:500],
        "examples": examples,
        "metrics": dict(metrics),
        "ended_at": state.date(),
    }
    with state.database.write() as session:
        session.execute(delete(CentralRow).where(CentralRow.run == run_id, CentralRow.version == version))
        session.execute(insert(CentralRow), row)
    if why:
        _log.warning("run %s: version %d was not evaluated on the server's data: %s", run_id, version, why)


def central_of(session: Session, run_id: str) -> dict[str, Any]:
    """Returns the evaluations of a run on the operator's data, by version, and whether some are still to be done."""
    names = ("version", "state", "why", "examples", "metrics", "ended_at")
    columns = [getattr(CentralRow, name) for name in names]
    rows = session.execute(select(*columns).where(CentralRow.run == run_id).order_by(CentralRow.version)).all()
    return {
        "central": [{name: getattr(row, name) for name in names} for row in rows],
        "central_pending": bool(_pending(session, run_id)),
    }


def _first_due(state: ServerState) -> tuple[str, int, Any] | None:
    with state.database.read() as session:
        chosen = select(RunRow.run).where(RunRow.evaluation_data != "").order_by(RunRow.created_clock, RunRow.run)
        for run_id in session.scalars(chosen).all():
            for number in _pending(session, run_id)[:1]:
                row = session.execute(
                    select(RunRow.model_hash, RunRow.evaluation_data, VersionRow.weights_hash)
                    .join_from(RunRow, VersionRow, VersionRow.run == RunRow.run)
                    .where(RunRow.run == run_id, VersionRow.number == number)
                ).one()
                return run_id, number, row
    return None


def _pending(session: Session, run_id: str) -> list[int]:
    run = session.execute(
        select(RunRow.state, RunRow.version, RunRow.settings, RunRow.evaluation_data).where(RunRow.run == run_id)
    ).one()
    if not run.evaluation_data:
        return []
    every = RunSettings.from_json(run.settings).evaluate_every or 1
    known = set(session.scalars(select(CentralRow.version).where(CentralRow.run == run_id)))
    numbers = session.scalars(
        select(VersionRow.number).where(VersionRow.run == run_id).order_by(VersionRow.number)
    ).all()
    last = run.version if run.state in _OVER else None
    return [number for number in numbers if number not in known and is_due(every, number, last)]
