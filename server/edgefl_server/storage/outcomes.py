"""Outcomes: what is accepted, and that an answer of 202 is kept whatever happens afterwards."""

from __future__ import annotations

from dataclasses import replace
from enum import IntEnum

from sqlalchemy import select
from sqlalchemy.orm import Session

from edgefl.errors import EdgeflError, OutcomeRefusedError
from edgefl.wire.messages import Outcome, OutcomeStatus, Reason
from edgefl_server.aggregation import (
    AssignmentState,
    Expectation,
    ModelLimits,
    RoundState,
    RunSettings,
    decode_outcome,
    strategy_for,
    validate,
)
from edgefl_server.storage.clock import Moment
from edgefl_server.storage.round_rows import Disposition, load_round, save_round
from edgefl_server.storage.runs import fail_run_if_hopeless
from edgefl_server.storage.state import ServerState
from edgefl_server.storage.tables import AssignmentRow, OutcomeRow, RoundRow, RunRow
from edgefl_server.storage.uploads import Upload

__all__ = [
    "NotWantedError",
    "accept_outcome",
    "accept_upload",
    "largest_outcome",
    "received_bytes",
    "sweep_uploads",
    "was_accepted",
]

_TEMPORARY = (Reason.BUSY, Reason.NOT_READY)
_BYTES_PER_ELEMENT = 8
"""At least two sections of the largest codec."""
_BYTES_BESIDE_VECTORS = 1 << 20
"""Names, hashes and metric states."""
_TASKS_A_QUERY = 500
_STATES = {
    OutcomeStatus.DONE: AssignmentState.DONE,
    OutcomeStatus.DECLINED: AssignmentState.DECLINED,
    OutcomeStatus.FAILED: AssignmentState.FAILED,
}


class NotWantedError(EdgeflError):
    """An outcome that came when nobody waited for it any more; the device did nothing wrong.

    Args:
        code: ``surplus`` (the round had enough) or ``stale`` (it was given up, or the task was).
        message: what happened.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message, hint="Drop it and ask for the next task.")
        self.code = code


def largest_outcome(state: ServerState, device: str, task_id: str) -> int:
    """The most bytes that an outcome of this task can need, whatever the codec.

    Raises:
        KeyError: the device has no such task.
    """
    with state.database.read() as session:
        assignment = session.get(AssignmentRow, task_id)
        if assignment is None or assignment.device != device:
            raise KeyError(task_id)
        run = session.get_one(RunRow, assignment.run)
        return _BYTES_PER_ELEMENT * (run.weight_size + run.statistic_size) + _BYTES_BESIDE_VECTORS


def was_accepted(state: ServerState, device: str, task_id: str, digest: str | None) -> bool:
    """Whether just this outcome was accepted before. To be asked before its bytes are read: it may not be wanted.

    Args:
        state: the server's.
        device: who sends it, authenticated.
        task_id: which task it answers.
        digest: the SHA-256 of the message; None: it is not known yet, and the answer False.

    Raises:
        KeyError: the device has no such task.
        NotWantedError: surplus or stale.
        OutcomeRefusedError: ``conflicting_outcome``.
    """
    with state.database.read() as session:
        if digest is None and session.get(OutcomeRow, task_id) is not None:
            return False
        accepted = _admit(session, device, task_id, digest or "") is None
    if accepted:
        state.database.require_own_file()  # what only an unnamed file knows is not kept
    return accepted


def received_bytes(state: ServerState, device: str, task_id: str, digest: str) -> int:
    """How much of an outcome is here: from which byte on to send it; all of it, once it was accepted.

    Raises:
        KeyError: the device has no such task.
        NotWantedError: surplus or stale.
        OutcomeRefusedError: ``conflicting_outcome``.
        StorageError: what is here cannot be read.
    """
    with state.database.read() as session:
        if _admit(session, device, task_id, digest) is None:
            return session.get_one(OutcomeRow, task_id).size
    return state.uploads.received(device, task_id, digest)


def accept_outcome(state: ServerState, device: str, task_id: str, data: bytes) -> bool:
    """Like `accept_upload`, for a message in memory."""
    upload = state.uploads.anonymous()
    upload.write(data)
    return accept_upload(state, device, task_id, upload)


def accept_upload(state: ServerState, device: str, task_id: str, upload: Upload) -> bool:
    """Accepts an outcome: once this returns, it is on the disk, belongs to its round and will be folded once.

    Args:
        state: the server's.
        device: who sends it, authenticated.
        task_id: which task it answers.
        upload: the whole message; is ended, whatever happens.

    Returns:
        True when there may be new work for other devices at once: this one gave its place back.

    Raises:
        KeyError: the device has no such task.
        NotWantedError: surplus or stale.
        OutcomeRefusedError: it does not fit, with the reason.
        StorageError: no space; nothing was accepted.
    """
    try:
        digest, size = upload.digest(), upload.received
        with state.database.read() as session:
            expected = _admit(session, device, task_id, digest)
        if expected is None:
            state.database.require_own_file()
            return False
        outcome = decode_outcome(upload.read())
        validate(outcome, expected)
        status = outcome.status
        # Only what is recorded is needed from here on; the vectors are as large as the file.
        noted = replace(outcome, sections=())
        del outcome
        if status == OutcomeStatus.DONE:
            # The file first: a row never names a file that is not there. A file without a row is an orphan and
            # harmless. Of an outcome that holds no update the row says all.
            state.outcomes.adopt(upload.path, digest)
        try:
            with state.database.write() as session:
                if _admit(session, device, task_id, digest) is None:
                    return False
                _record(session, state.now(), noted, digest, size)
        except (NotWantedError, OutcomeRefusedError):
            # The round closed, or another outcome came, while this one was checked: no row names the file.
            state.outcomes.delete(digest)
            raise
        return status != OutcomeStatus.DONE
    finally:
        upload.discard()


def sweep_uploads(state: ServerState) -> None:
    """Deletes what has arrived in part of messages that are not wanted any more, or whose sender is gone."""
    tasks = state.uploads.tasks()
    wanted: set[str] = set()
    with state.database.read() as session:
        for start in range(0, len(tasks), _TASKS_A_QUERY):
            wanted.update(
                session.scalars(
                    select(AssignmentRow.task_id).where(
                        AssignmentRow.task_id.in_(tasks[start : start + _TASKS_A_QUERY]),
                        AssignmentRow.state == AssignmentState.OPEN.value,
                    )
                )
            )
    state.uploads.sweep(wanted)


def _admit(session: Session, device: str, task_id: str, digest: str) -> Expectation | None:
    """What the outcome has to fit; None when just this one was accepted before."""
    assignment = session.get(AssignmentRow, task_id)
    if assignment is None or assignment.device != device:
        raise KeyError(task_id)
    earlier = session.get(OutcomeRow, task_id)
    if earlier is not None:
        if earlier.digest == digest:
            return None
        raise OutcomeRefusedError(
            "conflicting_outcome", f"Task {task_id} has another outcome already, which stays the one that counts."
        )
    run = session.get_one(RunRow, assignment.run)
    row = session.get_one(RoundRow, (assignment.run, assignment.round))
    round_state = RoundState(row.state)
    if assignment.state != AssignmentState.OPEN.value or not round_state.takes_outcomes:
        if round_state in (RoundState.FOLDING, RoundState.DONE):
            raise NotWantedError("surplus", f"Round {assignment.round} closed without task {task_id}.")
        if round_state is RoundState.FAILED:
            raise NotWantedError("stale", f"Round {assignment.round} was given up: {row.why}.")
        if assignment.state == AssignmentState.FAILED.value:
            raise NotWantedError("stale", f"Task {task_id} took longer than a task of this run may.")
        raise NotWantedError("stale", f"Task {task_id} was silent for too long and went to another device.")
    settings = RunSettings.from_json(run.settings)
    return Expectation(
        task_id=task_id,
        base_weights_hash=row.base_weights_hash,
        layout_hash=run.layout_hash,
        weight_size=run.weight_size,
        statistic_size=run.statistic_size,
        max_norm=settings.norm_bound,
        sections=strategy_for(settings, run.weight_size).demand.sections,
        limits=ModelLimits.from_json(run.limits),
    )


def _record(session: Session, now: Moment, outcome: Outcome, digest: str, size: int) -> None:
    assignment = session.get_one(AssignmentRow, outcome.task_id)
    run = session.get_one(RunRow, assignment.run)
    status = OutcomeStatus(outcome.status)
    session.add(
        OutcomeRow(
            task_id=outcome.task_id,
            run=run.run,
            round=assignment.round,
            digest=digest,
            size=size,
            status=status.name.lower(),
            reason=_name(outcome.reason),
            num_examples=outcome.num_examples,
            disposition=Disposition.ACCEPTED if status is OutcomeStatus.DONE else Disposition.NOTED,
            trainer=outcome.trainer[:200],
            accepted_at=now.date,
        )
    )
    before = load_round(session, run, assignment.round)
    after = before.settle(assignment.device, _STATES[status], now.clock, temporary=outcome.reason in _TEMPORARY)
    session.flush()
    save_round(session, run, assignment.round, before, after, now.clock)
    if after.state is RoundState.FAILED:
        session.flush()
        fail_run_if_hopeless(session, run, now)


def _name(reason: IntEnum | int) -> str:
    return reason.name.lower() if isinstance(reason, IntEnum) else str(reason)
