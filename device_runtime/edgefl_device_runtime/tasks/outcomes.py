"""The outcomes of tasks that were not done, and the reasons that they tell."""

from __future__ import annotations

import errno

from edgefl.errors import (
    DataError,
    DataNotReadyError,
    FormatVersionError,
    HashMismatchError,
    InvalidSettingError,
    ModelFileError,
    RuntimeFailure,
    StorageError,
)
from edgefl.wire.messages import Outcome, OutcomeStatus, Reason, Task
from edgefl.wire.refusals import Refusal
from edgefl_device_runtime.tasks.conditions import DeadlinePassedError, TaskDeclinedError
from edgefl_device_runtime.tasks.run_memory import MemoryLostError

__all__ = ["given_up", "reason_for", "refusal", "unfinished"]


def unfinished(task: Task, status: OutcomeStatus, reason: Reason, version: str) -> Outcome:
    """Makes the outcome of a task that was declined or failed.

    Args:
        task: that was not done.
        status: ``DECLINED`` or ``FAILED``.
        reason: why.
        version: of what would have trained.
    """
    return Outcome(
        task_id=task.task_id,
        base_weights_hash=task.base_weights_hash,
        layout_hash=task.layout_hash,
        status=status,
        reason=reason,
        trainer=version,
    )


def refusal(task: Task, error: Exception, version: str) -> Outcome:
    """Makes the outcome of a task that an error has kept from being done; all that it tells is a reason of the list."""
    return unfinished(task, *reason_for(error), version)


def given_up(outcome: Outcome, refusal: str) -> Outcome:
    """Makes what is sent instead of an outcome that the server refused, so that nobody waits for another one.

    Args:
        outcome: that was refused.
        refusal: the server's reason code.
    """
    reasons: dict[str, Reason] = {
        Refusal.NOT_FINITE: Reason.DIVERGED,
        Refusal.NORM_EXCEEDED: Reason.DIVERGED,
        Refusal.WRONG_BASE_WEIGHTS: Reason.HASH_MISMATCH,
        Refusal.WRONG_LAYOUT: Reason.HASH_MISMATCH,
        Refusal.UNKNOWN_CODEC: Reason.UNSUPPORTED_TASK,
        Refusal.WRONG_CODEC: Reason.UNSUPPORTED_TASK,
    }
    return Outcome(
        task_id=outcome.task_id,
        base_weights_hash=outcome.base_weights_hash,
        layout_hash=outcome.layout_hash,
        status=OutcomeStatus.FAILED,
        reason=reasons.get(refusal, Reason.INTERNAL),
        trainer=outcome.trainer,
    )


def reason_for(error: Exception) -> tuple[OutcomeStatus, Reason]:
    """Says what the server is told about an error."""
    if isinstance(error, TaskDeclinedError):
        return OutcomeStatus.DECLINED, error.reason
    if isinstance(error, DataNotReadyError):
        return OutcomeStatus.DECLINED, Reason.NOT_READY
    if isinstance(error, InvalidSettingError):
        return OutcomeStatus.DECLINED, Reason.UNSUPPORTED_TASK
    if isinstance(error, StorageError):
        full = isinstance(error.__cause__, OSError) and error.__cause__.errno in (errno.ENOSPC, errno.EDQUOT)
        return OutcomeStatus.FAILED, Reason.OUT_OF_DISK if full else Reason.INTERNAL
    reasons: list[tuple[type[Exception], Reason]] = [
        (MemoryLostError, Reason.MEMORY_LOST),
        (DeadlinePassedError, Reason.OUT_OF_TIME),
        (DataError, Reason.DATA_MISMATCH),
        (HashMismatchError, Reason.HASH_MISMATCH),
        (ModelFileError, Reason.UNSUPPORTED_MODEL),
        (FormatVersionError, Reason.UNSUPPORTED_MODEL),
        (RuntimeFailure, Reason.UNSUPPORTED_MODEL),
        (MemoryError, Reason.OUT_OF_MEMORY),
    ]
    return OutcomeStatus.FAILED, next((reason for kind, reason in reasons if isinstance(error, kind)), Reason.INTERNAL)
