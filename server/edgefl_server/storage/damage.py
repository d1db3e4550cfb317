"""Model files and weights that active runs need: a run that has lost one fails and says so, instead of stalling."""

from __future__ import annotations

import logging

from sqlalchemy import select

from edgefl.errors import storage_error
from edgefl_server.storage.blobs import BlobStore, DamagedBlobError
from edgefl_server.storage.runs import end_run
from edgefl_server.storage.state import ServerState
from edgefl_server.storage.tables import RunRow, RunState, VersionRow

__all__ = ["fail_damaged_run", "fail_damaged_runs"]

_log = logging.getLogger(__name__)
_LOOK = "look at its files"


def fail_damaged_run(state: ServerState, run_id: str, why: str) -> None:
    """Ends a run that nothing can repair."""
    with state.database.write() as session:
        ended = end_run(session, run_id, RunState.FAILED, why, state.now())
    if ended:
        state.keep_generation()
        _log.error("run %s failed: %s", run_id, why)
        state.troubles.drop(run_id)


def fail_damaged_runs(state: ServerState) -> bool:
    """Looks at what the open rounds of active runs hand out; True when a run failed.

    A file is read when it is new here or was changed, so that looking every few seconds costs next to nothing.
    """
    with state.database.read() as session:
        active = session.scalars(select(RunRow.run).where(RunRow.state.in_(RunState.GOING_ON))).all()
    failed, seen = False, set[str]()
    for run_id in active:
        if state.troubles.rest(run_id, _LOOK, state.clock()):
            continue
        try:
            why = _damage(state, run_id, seen)
            if why:
                fail_damaged_run(state, run_id, why)
                failed = True
        except Exception as error:
            state.troubles.note(run_id, _LOOK, error, state.clock())
        else:
            state.troubles.clear(run_id, _LOOK)
    state.intact = {digest: signature for digest, signature in state.intact.items() if digest in seen}
    return failed


def _damage(state: ServerState, run_id: str, seen: set[str]) -> str:
    """Says what is wrong with the files of a run; empty: nothing. Adds what it looked at to `seen`."""
    with state.database.read() as session:
        model, number, version = session.execute(
            select(RunRow.model_hash, RunRow.fold, RunRow.version).where(RunRow.run == run_id)
        ).one()
        row = session.row(VersionRow, run=run_id, number=version)
        weights = [row.weights_hash, *row.slots.values()]
    for store, digest, what in (
        (state.models, model, "model file"),
        *((state.weights, w, "weights file") for w in weights),
    ):
        seen.add(digest)
        problem = _problem(state, store, digest)
        if problem:
            return f"the {what} {digest} of round {number} {problem}"
    return ""


def _problem(state: ServerState, store: BlobStore, digest: str) -> str:
    path = store.path(digest)
    if path is None:
        return "is gone"
    try:
        entry = path.stat()
        signature = (entry.st_ino, entry.st_size, entry.st_mtime_ns)
        if state.intact.get(digest) != signature:
            store.verify(digest)
            state.intact[digest] = signature
    except FileNotFoundError:
        return "is gone"
    except OSError as error:  # this may pass
        raise storage_error(error, "read", path) from error
    except DamagedBlobError as error:
        return f"is damaged: {error.message}"
    return ""
