"""Outcomes: what is accepted, and that an answer of 202 is kept whatever happens afterwards."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import IntEnum

from sqlalchemy import bindparam, insert, select
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
from edgefl_server.storage.round_rows import (
    Disposition,
    KeptTask,
    find_task,
    has_open_task,
    load_round,
    reading,
    save_round,
)
from edgefl_server.storage.runs import fail_run_if_hopeless
from edgefl_server.storage.state import ServerState
from edgefl_server.storage.tables import AssignmentRow, OutcomeRow, RunRow, table
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
_SETTINGS = select(RunRow.settings, RunRow.limits).where(RunRow.run == bindparam("run"))
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
        made_room: fewer places of its round are taken: this one was given back, or overdue tasks were ended.
        closed: its round takes no more outcomes: it is to be folded, or the next one is open, or the run is over.
        idle: the device has no other open task.
    """

    made_room: bool = False
    closed: bool = False
    idle: bool = False


def look_at_outcome(state: ServerState, device: str, task_id: str, digest: str | None) -> Looked:
    """To be asked before the bytes of an outcome are read: it may not be wanted, or be here already.

    Args:
        state: the server's.
        device: who sends it, authenticated.
        task_id: which task it answers.
        digest: the SHA-256 of the message; None: it is not known yet.

    Raises:
        UnknownTaskError: the device has no such task.
        NotWantedError: surplus or stale.
        OutcomeRefusedError: ``conflicting_outcome``.
        ReplacedDatabaseError: what is accepted would be found by nobody.
    """
    with state.database.read() as session:
        task = find_task(session, device, task_id)
        most_bytes = _BYTES_PER_ELEMENT * (task.weight_size + task.statistic_size) + _BYTES_BESIDE_VECTORS
        if digest is None and task.outcome_digest is not None:
            return Looked(accepted=False, most_bytes=most_bytes)
        accepted = _was_accepted(task, digest or "")
        expected = None if accepted else _expectation(session, task)
    if accepted:
        state.database.require_own_file()  # what only an unnamed file knows is not kept
    return Looked(accepted, most_bytes, expected)


def received_bytes(state: ServerState, device: str, task_id: str, digest: str) -> int:
    """How much of an outcome is here: from which byte on to send it; all of it, once it was accepted.

    Raises:
        UnknownTaskError: the device has no such task.
        NotWantedError: surplus or stale.
        OutcomeRefusedError: ``conflicting_outcome``.
        StorageError: what is here cannot be read.
    """
    with state.database.read() as session:
        task = find_task(session, device, task_id)
        if _was_accepted(task, digest):
            return task.outcome_size or 0
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
        UnknownTaskError: the device has no such task.
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
                if _was_accepted(task, digest):
                    return Accepted()
                before, after = _record(session, device, task, state.now(), noted, digest, size)
                idle = not has_open_task(session, device)
        except (NotWantedError, OutcomeRefusedError):
            # The round closed, or another outcome came, while this one was checked: no row names the file.
            state.outcomes.delete(digest)
            raise
        return Accepted(after.busy() < before.busy(), not after.state.takes_outcomes, idle)
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


def _was_accepted(task: KeptTask, digest: str) -> bool:
    """Whether just this outcome was accepted before; False: it is wanted."""
    if task.outcome_digest is not None:
        if task.outcome_digest == digest:
            return True
        raise OutcomeRefusedError(
            Refusal.CONFLICTING_OUTCOME,
            f"Task {task.task_id} has another outcome already, which stays the one that counts.",
        )
    round_state = RoundState(task.round_state)
    if task.state != AssignmentState.OPEN.value or not round_state.takes_outcomes:
        if round_state in (RoundState.FOLDING, RoundState.DONE):
            raise NotWantedError(Refusal.SURPLUS, f"Round {task.round} closed without task {task.task_id}.")
        if round_state is RoundState.FAILED:
            raise NotWantedError(Refusal.STALE, f"Round {task.round} was given up: {task.round_why}.")
        if task.state == AssignmentState.FAILED.value:
            raise NotWantedError(Refusal.STALE, f"Task {task.task_id} took longer than a task of this run may.")
        raise NotWantedError(Refusal.STALE, f"Task {task.task_id} was silent for too long and went to another device.")
    return False


def _expectation(session: Session, task: KeptTask) -> Expectation:
    """What an outcome of the task has to fit."""
    with reading(task.run):
        stored, limits = session.execute(_SETTINGS, {"run": task.run}).one()
        settings = RunSettings.from_json(stored)
        return Expectation(
            task_id=task.task_id,
            base_weights_hash=task.base_weights_hash,
            layout_hash=task.layout_hash,
            weight_size=task.weight_size,
            statistic_size=task.statistic_size,
            max_norm=settings.norm_bound,
            sections=strategy_for(settings, task.weight_size).demand.sections,
            limits=ModelLimits.from_json(limits),
        )


def _record(
    session: Session, device: str, task: KeptTask, now: Moment, outcome: Outcome, digest: str, size: int
) -> tuple[Round, Round]:
    """Writes down an outcome and what it means for its round: before and after."""
    status = OutcomeStatus(outcome.status)
    session.execute(
        _INSERT,
        {
            "task_id": outcome.task_id,
            "run": task.run,
            "round": task.round,
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
    with reading(task.run):
        run = session.get_one(RunRow, task.run)
        before = load_round(session, run, task.round)
    after = before.settle(device, _STATES[status], now.clock, temporary=outcome.reason in _TEMPORARY)
    save_round(session, run, task.round, before, after, now.clock)
    if after.state is RoundState.FAILED:
        session.flush()
        fail_run_if_hopeless(session, run, now)
    return before, after


def _name(reason: IntEnum | int) -> str:
    return reason.name.lower() if isinstance(reason, IntEnum) else str(reason)
