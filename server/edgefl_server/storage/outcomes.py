"""Outcomes: what is accepted, and that an answer of 202 is kept whatever happens afterwards."""

from __future__ import annotations

import contextlib
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from enum import IntEnum

from sqlalchemy import insert, select

from edgefl.errors import EdgeflError, OutcomeRefusedError, StorageError
from edgefl.wire.messages import Outcome, OutcomeStatus
from edgefl.wire.refusals import Refusal
from edgefl_server.aggregation import (
    AssignmentState,
    Change,
    Concerned,
    Expectation,
    FoldState,
    codecs_of,
    decode_outcome,
    ending,
    most_bytes,
    validate,
)
from edgefl_server.storage.changes import apply
from edgefl_server.storage.clock import Moment
from edgefl_server.storage.cohorts import concerned_by_time, demand_of, limits_of
from edgefl_server.storage.found_tasks import FoundTask, find_task, has_open_task, reading
from edgefl_server.storage.placements import Located
from edgefl_server.storage.runs import after_failed_fold
from edgefl_server.storage.sessions import Session
from edgefl_server.storage.state import ServerState
from edgefl_server.storage.statements import Statement
from edgefl_server.storage.tables import AssignmentRow, Disposition, OutcomeRow, table
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

_TASKS_A_QUERY = 500
_FADES = 2 / 3
_INSERT = Statement(insert(table(OutcomeRow)))


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
    """Everything that is known of an outcome before its bytes are read.

    Attributes:
        accepted: just this outcome was accepted before.
        most_bytes: that any outcome of the task can need, whatever the codec.
        expected: what it has to fit; None when it was accepted, or another one may have been.
        lease_fades: a third of the task's lease has passed: it is time to renew it.
    """

    accepted: bool
    most_bytes: int
    expected: Expectation | None = None
    lease_fades: bool = False


@dataclass(frozen=True)
class Accepted:
    """The changes that an accepted outcome makes for others.

    Attributes:
        made_room: there may be new work at once: the device gave its place back, or overdue tasks were ended.
        closed: its round takes no more outcomes: it is to be folded, or the next one is open, or the run is over.
        idle: the device has no other open task.
        failed: its round failed of it, and the run with it or not.
        status: how it ended, in a word; empty: it was accepted before.
        codec: that wrote its update; ``none``: it holds none.
        size: bytes of the message.
    """

    made_room: bool = False
    closed: bool = False
    idle: bool = False
    failed: bool = False
    status: str = ""
    codec: str = "none"
    size: int = 0


def look_at_outcome(state: ServerState, device: str, task_id: str, digest: str | None) -> Looked:
    """Looks at an outcome before its bytes are read: it may not be wanted, or be here already.

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
        now = state.clock()
        task = find_task(session, device, task_id, now)
        if digest is None and task.digest is not None:
            # It may be the one that was accepted, also where its run cannot be read any more: not larger than that
            # one, or than an update, in any case.
            most = most_bytes(task.weight_size, task.statistic_size)
            return Looked(accepted=False, most_bytes=max(most, task.size or 0))
        if not _was_accepted(task, digest or ""):
            with reading(task.run):
                of = task.gathering
                sections = demand_of(of.settings_text).sections
                fades = task.assignment.leased_until - now <= _FADES * of.settings.lease_seconds
            most = most_bytes(task.weight_size, task.statistic_size, sections)
            return Looked(accepted=False, most_bytes=most, expected=_expectation(task), lease_fades=fades)
    state.database.require_in_place()  # what only an unnamed file knows is not kept
    return Looked(accepted=True, most_bytes=task.size or 0)


def received_bytes(state: ServerState, device: str, task_id: str, digest: str) -> int:
    """Says how much of an outcome is here: from which byte on to send it; all of it, once it was accepted.

    Raises:
        UnknownTaskError: the device has no such task.
        NotWantedError: surplus or stale.
        OutcomeRefusedError: ``conflicting_outcome``.
        StorageError: what is here cannot be read.
    """
    with state.database.read() as session:
        task = find_task(session, device, task_id, state.clock())
        if _was_accepted(task, digest):
            return task.size or 0
    return state.uploads.received(device, task_id, digest)


def accept_outcome(state: ServerState, device: str, task_id: str, data: bytes) -> Accepted:
    """Does what `accept_upload` does with a message in memory."""
    upload = state.uploads.anonymous()
    upload.write(data)
    return accept_upload(state, device, task_id, upload)


def accept_upload(
    state: ServerState,
    device: str,
    task_id: str,
    upload: Upload,
    expected: Expectation | None = None,
    in_memory: AbstractContextManager[object] | None = None,
) -> Accepted:
    """Accepts an outcome: once this returns, it is on the disk, belongs to its round and will be folded once.

    Args:
        state: the server's.
        device: who sends it, authenticated.
        task_id: which task it answers.
        upload: the whole message; is ended, whatever happens.
        expected: what `look_at_outcome` said of it; None: it is looked up.
        in_memory: is held while the message is in memory, and not while the disk is waited for.

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
        with in_memory or contextlib.nullcontext():
            noted, located, codec = _checked(upload, expected)
        if OutcomeStatus(noted.status) is OutcomeStatus.DONE:
            # The file first: a row never names a file that is not there. A file without a row is an orphan and
            # harmless. Of an outcome that holds no update the row says all.
            state.outcomes.adopt(upload.path, digest)
            state.placements.note(digest, expected, located)

        def record(session: Session) -> Accepted | None:
            now = state.now()
            task = find_task(session, device, task_id, now.clock)
            if _was_accepted(task, digest):
                return None
            return _record(session, device, task, now, noted, digest, size)

        try:
            accepted = state.database.write_together(record)
        except (NotWantedError, OutcomeRefusedError):
            # The round closed, or another outcome came, while this one was checked: no row names the file.
            state.outcomes.delete(digest)
            raise
        except StorageError as error:
            # Of another failure it is not certain that the row is not there.
            if error.full:
                with contextlib.suppress(EdgeflError):  # a start puts it aside
                    state.outcomes.delete(digest)
            raise
        if accepted is None:
            return Accepted()
        state.barring.sent(device)
        if accepted.failed:
            state.keep_generation()
        return replace(accepted, status=_name(noted.status), codec=codec, size=size)
    finally:
        upload.discard()


def _checked(upload: Upload, expected: Expectation) -> tuple[Outcome, Located | None, str]:
    """Returns what is recorded of a message that fits, without its vectors, where these are, and their codec."""
    data = upload.read()
    outcome = decode_outcome(data)
    update = validate(outcome, expected)
    noted = replace(outcome, sections=())
    if update is None:  # nobody has looked at what it calls its codecs
        return noted, None, "none"
    codec = outcome.sections[0].codec if outcome.sections else "none"
    return noted, Located.of(data, outcome, update), codec


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


def _was_accepted(task: FoundTask, digest: str) -> bool:
    """Whether just this outcome was accepted before; False: it is wanted."""
    if task.digest is not None:
        if task.digest == digest:
            return True
        raise OutcomeRefusedError(
            Refusal.CONFLICTING_OUTCOME,
            f"Task {task.task_id} has another outcome already, which stays the one that counts.",
        )
    if not task.is_wanted:
        if task.fold_state in (FoldState.FOLDING, FoldState.DONE):
            raise NotWantedError(Refusal.SURPLUS, f"Round {task.fold} closed without task {task.task_id}.")
        if task.fold_state is FoldState.FAILED:
            raise NotWantedError(Refusal.STALE, f"Round {task.fold} was given up: {task.fold_why}.")
        if task.state is AssignmentState.OUT_OF_TIME:
            raise NotWantedError(Refusal.STALE, f"Task {task.task_id} took longer than a task of this run may.")
        raise NotWantedError(Refusal.STALE, f"Task {task.task_id} was silent for too long and went to another device.")
    return False


def _expectation(task: FoundTask) -> Expectation:
    """Says what an outcome of the task has to fit."""
    of = task.gathering
    with reading(task.run):
        demand = demand_of(of.settings_text)
        return Expectation(
            task_id=task.task_id,
            base_weights_hash=task.base_weights_hash,
            layout_hash=task.layout_hash,
            weight_size=task.weight_size,
            statistic_size=task.statistic_size,
            max_norm=of.settings.norm_bound,
            sections=demand.sections,
            limits=limits_of(task.limits_text),
            codecs=codecs_of(of.settings, demand, of.cohort, task.assignment),
        )


def _record(
    session: Session, device: str, task: FoundTask, now: Moment, outcome: Outcome, digest: str, size: int
) -> Accepted:
    """Writes down an outcome and what it changes, and says what that is for others."""
    of, status = task.gathering, OutcomeStatus(outcome.status)
    with reading(of.run):
        settings, schedule = of.settings, of.schedule
    concerned = Concerned(task.assignment)
    with reading(of.run):
        if task.any_overdue or of.root:
            concerned = concerned_by_time(session, of, now.clock, task.assignment)
    ended, temporary = ending(status, outcome.reason)
    change = schedule.settle(of.standing, concerned, ended, now.clock, temporary=temporary)
    done = status is OutcomeStatus.DONE
    session.execute(
        _INSERT,
        {
            "task_id": outcome.task_id,
            "run": of.run,
            "fold": of.fold,
            "device": device,
            "digest": digest,
            "size": size,
            "status": status.name.lower(),
            "reason": _name(outcome.reason),
            "num_examples": outcome.num_examples,
            "disposition": _disposition(change) if done else Disposition.NOTED,
            "trainer": outcome.trainer[:200],
            "accepted": change.standing.accepted if done else 0,
            "accepted_at": now.date,
        },
    )
    apply(session, of, change, now)
    failed = change.standing.state is FoldState.FAILED
    if failed:
        after_failed_fold(session, of.run, of.fold, settings.rounds, now)
    free = schedule.places(change.following or change.standing, 0, 0)
    return Accepted(
        made_room=not done or free > schedule.places(of.standing, 0, 0),
        closed=not change.standing.state.takes_outcomes,
        idle=not has_open_task(session, device),
        failed=failed,
    )


def _disposition(change: Change) -> str:
    return Disposition.STALE if change.left_out else Disposition.ACCEPTED


def _name(reason: IntEnum | int) -> str:
    return reason.name.lower() if isinstance(reason, IntEnum) else str(reason)
