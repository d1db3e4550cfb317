from __future__ import annotations

import errno

import pytest

from edgefl.errors import (
    DataError,
    DataNotReadyError,
    FormatVersionError,
    HashMismatchError,
    InvalidSettingError,
    ModelFileError,
    RuntimeFailure,
    StorageError,
    storage_error,
)
from edgefl.wire.messages import OutcomeStatus, Reason
from edgefl_device_runtime.tasks import (
    DeadlinePassedError,
    MemoryLostError,
    TaskDeclinedError,
    given_up,
    reason_for,
    refusal,
)


@pytest.mark.parametrize(
    ("error", "status", "reason"),
    [
        (TaskDeclinedError(Reason.NO_DATA, ""), OutcomeStatus.DECLINED, Reason.NO_DATA),
        (InvalidSettingError(""), OutcomeStatus.DECLINED, Reason.UNSUPPORTED_TASK),
        (DataError(""), OutcomeStatus.FAILED, Reason.DATA_MISMATCH),
        (DataNotReadyError(""), OutcomeStatus.DECLINED, Reason.NOT_READY),
        (HashMismatchError(""), OutcomeStatus.FAILED, Reason.HASH_MISMATCH),
        (MemoryLostError(""), OutcomeStatus.FAILED, Reason.MEMORY_LOST),
        (DeadlinePassedError(""), OutcomeStatus.FAILED, Reason.OUT_OF_TIME),
        (ModelFileError(""), OutcomeStatus.FAILED, Reason.UNSUPPORTED_MODEL),
        (FormatVersionError(""), OutcomeStatus.FAILED, Reason.UNSUPPORTED_MODEL),
        (RuntimeFailure(""), OutcomeStatus.FAILED, Reason.UNSUPPORTED_MODEL),
        (MemoryError(), OutcomeStatus.FAILED, Reason.OUT_OF_MEMORY),
        (StorageError(""), OutcomeStatus.FAILED, Reason.INTERNAL),
        (KeyError("x"), OutcomeStatus.FAILED, Reason.INTERNAL),
    ],
)
def test_every_error_has_a_reason_from_the_list(device, error, status, reason):
    assert reason_for(error) == (status, reason)
    outcome = refusal(device.task(), error, "test/1")
    assert (outcome.status, outcome.reason, outcome.trainer) == (status, reason, "test/1")
    assert (outcome.sections, outcome.metrics, outcome.num_examples) == ((), (), 0)


def test_a_full_disk_is_told_apart():
    cause = OSError(errno.ENOSPC, "No space left on device")
    error = storage_error(cause, "write", "x")
    error.__cause__ = cause
    assert reason_for(error) == (OutcomeStatus.FAILED, Reason.OUT_OF_DISK)


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("not_finite", Reason.DIVERGED),
        ("wrong_layout", Reason.HASH_MISMATCH),
        ("unknown_codec", Reason.UNSUPPORTED_TASK),
        ("a code of a later server", Reason.INTERNAL),
    ],
)
def test_a_refused_outcome_is_given_up_with_a_reason_and_without_its_vectors(device, code, reason):
    refused = device.perform(device.task()).outcome
    outcome = given_up(refused, code)
    assert (outcome.status, outcome.reason, outcome.sections) == (OutcomeStatus.FAILED, reason, ())
    assert (outcome.task_id, outcome.trainer) == (refused.task_id, refused.trainer)
