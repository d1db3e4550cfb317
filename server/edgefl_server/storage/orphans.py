"""Files among the outcomes that no row names: put aside, and what they say about the database."""

from __future__ import annotations

import contextlib
import logging

from sqlalchemy import func, select

from edgefl.atomic import read_bytes
from edgefl.errors import OutcomeRefusedError, storage_error
from edgefl.hashing import sha256
from edgefl.wire.messages import OutcomeStatus
from edgefl_server.aggregation import decode_outcome
from edgefl_server.storage.sessions import Session
from edgefl_server.storage.state import ServerState
from edgefl_server.storage.tables import Disposition, OutcomeRow, RunRow, RunState

__all__ = ["count_unrecorded", "find_unrecorded", "put_aside", "sweep_orphans"]

_log = logging.getLogger(__name__)


def put_aside(state: ServerState, digest: str) -> None:
    """Moves a file to the folder of orphans.

    Raises:
        StorageError: it cannot be moved.
    """
    source = state.outcomes.path(digest)
    if source is None:
        return
    try:
        state.orphans.mkdir(mode=0o700, exist_ok=True)
        source.rename(state.orphans / digest)
    except OSError as error:
        raise storage_error(error, "move to the orphans", source) from error


def sweep_orphans(state: ServerState) -> int:
    """Deletes orphans whose device has sent them again since: they were folded, or will be from the other copy."""
    if not state.orphans.is_dir():
        return 0
    deleted = 0
    for path in sorted(state.orphans.iterdir()):
        with state.database.read() as session:
            known = session.scalar(
                select(func.count())
                .select_from(OutcomeRow)
                .where(OutcomeRow.digest == path.name, OutcomeRow.disposition == Disposition.FOLDED)
            )
        if known:
            with contextlib.suppress(OSError):  # it stays for the next start, and costs some disk until then
                path.unlink()
                deleted += 1
    return deleted


def find_unrecorded(state: ServerState) -> None:
    """Looks for intact outcomes of active runs among the orphans, whose tasks have none according to the database.

    A server that is killed just before it writes a row leaves one, which it had not answered yet; several are the sign
    of a database that has lost its latest entries.
    """
    found = {}
    paths = sorted(state.orphans.iterdir()) if state.orphans.is_dir() else []
    for path in paths:
        try:
            data = read_bytes(path)
            outcome = decode_outcome(data)
        except (OSError, OutcomeRefusedError):
            continue
        if outcome.status == OutcomeStatus.DONE and sha256(data) == path.name:
            found[outcome.task_id] = path
    state.unrecorded = found
    with state.database.read() as session:
        count = count_unrecorded(state, session)
    if count:
        _log.error("%d intact outcomes of active runs are not known to the database: it may have lost entries", count)


def count_unrecorded(state: ServerState, session: Session, population: str | None = None) -> int:
    """Counts what `find_unrecorded` found, the database still does not know, and nobody has deleted."""
    if not state.unrecorded:
        return 0
    query = select(RunRow.run).where(RunRow.state.in_(RunState.GOING_ON))
    active = set(session.scalars(query if population is None else query.where(RunRow.population == population)))
    return sum(
        task_id.partition("-")[0] in active and path.exists() and session.get(OutcomeRow, task_id) is None
        for task_id, path in state.unrecorded.items()
    )
