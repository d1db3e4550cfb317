"""Outcomes: what is accepted, and that an answer of 202 is kept whatever happens afterwards."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import IntEnum

from sqlalchemy import insert, select
from sqlalchemy.orm import Session

from edgefl.errors import EdgeflError, OutcomeRefusedError
from edgefl.wire.messages import Outcome, OutcomeStatus, Reason
from edgefl.wire.refusals import Refusal
from edgefl_server.aggregation import (
    AssignmentState,
    Expectation,
    ModelLimits,
    Round,
    RoundState,
    RunSettings,
    decode_outcome,
    strategy_for,
    validate,
)
from edgefl_server.storage.clock import Moment
from edgefl_server.storage.round_rows import Disposition, TaskRows, find_task, load_round, save_round
from edgefl_server.storage.runs import fail_run_if_hopeless
from edgefl_server.storage.state import ServerState
from edgefl_server.storage.tables import AssignmentRow, OutcomeRow, table
from edgefl_server.storage.uploads import Upload

__all__ = [
    "Accepted",
    "Looked",
    "NotWantedError",
    "accept_outcome",
    "accept_upload",
    "look_at_outcome",
    "received_bytes",
    "sweep_uploads",
]

_TEMPORARY = (Reason.BUSY, Reason.NOT_READY)
_BYTES_PER_ELEMENT = 8
"""At least two sections of the largest codec."""
_BYTES_BESIDE_VECTORS = 1 << 20
"""Names, hashes and metric states."""
_TASKS_A_QUERY = 500
_INSERT = insert(table(OutcomeRow))
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


@dataclass(frozen=True)
class Looked:
    """What is known of an outcome before its bytes are read.

    Attributes:
        accepted: just this outcome was accepted before.
        most_bytes: that any outcome of the task can need, whatever the codec.
        expected: what it has to fit; None when it was accepted, or another one may have been.
    """

    accepted: bool
    most_bytes: int
    expected: Expectation | None = None


@dataclass(frozen=True)
class Accepted:
    """What an accepted outcome changes for others.

    Attributes:
        made_room: there may be new work at once: the device gave its place back.
        closed: its round takes no more outcomes.
    """

    made_room: bool = False
    closed: bool = False


def look_at_outcome(state: ServerState, device: str, task_id: str, digest: str | None) -> Looked:
    """To be asked before the bytes of an outcome are read: it may not be wanted, or be here already.

    Args:
        state: the server's.
        device: who sends it, authenticated.
        task_id: which task it answers.
        digest: the SHA-256 of the message; None: it is not known yet.

    Raises:
        KeyError: the device has no such task.
        NotWantedError: surplus or stale.
        OutcomeRefusedError: ``conflicting_outcome``.
        ReplacedDatabaseError: what is accepted would be found by nobody.
    """
    with state.database.read() as session:
        task = find_task(session, device, task_id)
        most_bytes = _BYTES_PER_ELEMENT * (task.run.weight_size + task.run.statistic_size) + _BYTES_BESIDE_VECTORS
        if digest is None and task.outcome is not None:
            return Looked(accepted=False, most_bytes=most_bytes)
        expected = _admit(task, digest or "")
    if expected is None:
        state.database.require_own_file()  # what only an unnamed file knows is not kept
    return Looked(expected is None, most_bytes, expected)


def received_bytes(state: ServerState, device: str, task_id: str, digest: str) -> int:
    """How much of an outcome is here: from which byte on to send it; all of it, once it was accepted.

    Raises:
        KeyError: the device has no such task.
        NotWantedError: surplus or stale.
        OutcomeRefusedError: ``conflicting_outcome``.
        StorageError: what is here cannot be read.
    """
    with state.database.read() as session:
        task = find_task(session, device, task_id)
        if _admit(task, digest) is None:
            assert task.outcome is not None
            return task.outcome.size
    return state.uploads.received(device, task_id, digest)


def accept_outcome(state: ServerState, device: str, task_id: str, data: bytes) -> Accepted:
    """Like `accept_upload`, for a message in memory."""
    upload = state.uploads.anonymous()
    upload.write(data)
    return accept_upload(state, device, task_id, upload)


def accept_upload(
    state: ServerState, device: str, task_id: str, upload: Upload, expected: Expectation | None = None
) -> Accepted:
    """Accepts an outcome: once this returns, it is on the disk, belongs to its round and will be folded once.

    Args:
        state: the server's.
        device: who sends it, authenticated.
        task_id: which task it answers.
        upload: the whole message; is ended, whatever happens.
        expected: what `look_at_outcome` said of it; None: it is looked up.

    Raises:
        KeyError: the device has no such task.
        NotWantedError: surplus or stale.
        OutcomeRefusedError: it does not fit, with the reason.
        StorageError: no space; nothing was accepted.
    """
    try:
        digest, size = upload.digest(), upload.received
        expected = expected or look_at_outcome(state, device, task_id, digest).expected
        if expected is None:
            return Accepted()
        outcome = decode_outcome(upload.read())
        validate(outcome, expected)
        # Only what is recorded is needed from here on; the vectors are as large as the file.
        noted = replace(outcome, sections=())
        done = outcome.status == OutcomeStatus.DONE
        del outcome
        if done:
            # The file first: a row never names a file that is not there. A file without a row is an orphan and
            # harmless. Of an outcome that holds no update the row says all.
            state.outcomes.adopt(upload.path, digest)
        try:
            with state.database.write() as session:
                task = find_task(session, device, task_id)
                if _admit(task, digest) is None:
                    return Accepted()
                after = _record(session, task, state.now(), noted, digest, size)
        except (NotWantedError, OutcomeRefusedError):
            # The round closed, or another outcome came, while this one was checked: no row names the file.
            state.outcomes.delete(digest)
            raise
        return Accepted(made_room=not done, closed=not after.state.takes_outcomes)
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


def _admit(task: TaskRows, digest: str) -> Expectation | None:
    """What the outcome has to fit; None when just this one was accepted before."""
    assignment, run, row, earlier = task.assignment, task.run, task.round, task.outcome
    task_id = assignment.task_id
    if earlier is not None:
        if earlier.digest == digest:
            return None
        raise OutcomeRefusedError(
            Refusal.CONFLICTING_OUTCOME, f"Task {task_id} has another outcome already, which stays the one that counts."
        )
    round_state = RoundState(row.state)
    if assignment.state != AssignmentState.OPEN.value or not round_state.takes_outcomes:
        if round_state in (RoundState.FOLDING, RoundState.DONE):
            raise NotWantedError(Refusal.SURPLUS, f"Round {assignment.round} closed without task {task_id}.")
        if round_state is RoundState.FAILED:
            raise NotWantedError(Refusal.STALE, f"Round {assignment.round} was given up: {row.why}.")
        if assignment.state == AssignmentState.FAILED.value:
            raise NotWantedError(Refusal.STALE, f"Task {task_id} took longer than a task of this run may.")
        raise NotWantedError(Refusal.STALE, f"Task {task_id} was silent for too long and went to another device.")
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


def _record(session: Session, task: TaskRows, now: Moment, outcome: Outcome, digest: str, size: int) -> Round:
    """Writes down an outcome and what it means for its round, which is returned."""
    assignment, run = task.assignment, task.run
    status = OutcomeStatus(outcome.status)
    session.execute(
        _INSERT,
        {
            "task_id": outcome.task_id,
            "run": run.run,
            "round": assignment.round,
            "digest": digest,
            "size": size,
            "status": status.name.lower(),
            "reason": _name(outcome.reason),
            "num_examples": outcome.num_examples,
            "disposition": Disposition.ACCEPTED if status is OutcomeStatus.DONE else Disposition.NOTED,
            "trainer": outcome.trainer[:200],
            "accepted_at": now.date,
        },
    )
    before = load_round(session, run, assignment.round)
    after = before.settle(assignment.device, _STATES[status], now.clock, temporary=outcome.reason in _TEMPORARY)
    save_round(session, run, assignment.round, before, after, now.clock)
    if after.state is RoundState.FAILED:
        session.flush()
        fail_run_if_hopeless(session, run, now)
    return after


def _name(reason: IntEnum | int) -> str:
    return reason.name.lower() if isinstance(reason, IntEnum) else str(reason)
