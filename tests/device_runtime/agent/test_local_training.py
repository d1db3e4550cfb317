from __future__ import annotations

import errno

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from edgefl.errors import (
    DataError,
    DataNotReadyError,
    HashMismatchError,
    InvalidSettingError,
    ModelFileError,
    RuntimeFailure,
    StorageError,
    storage_error,
)
from edgefl.wire.messages import OutcomeStatus, Reason, SectionCodec, TaskKind
from edgefl_device_runtime.agent.examples import Examples
from edgefl_device_runtime.agent.local_training import Given, TaskDeclinedError, _clipped, perform, reason_for

EXAMPLES = Examples({"image": np.ones((4, 2), np.float32)}, {"label": np.zeros(4, np.int32)})
BASE = np.arange(3, dtype=np.float32)


def run(rig, task, examples=EXAMPLES, base=BASE):
    return perform(task, rig.trainer, Given(base), examples, lambda: None).outcome


def test_the_delta_is_what_training_changed(rig):
    outcome = run(rig, rig.task(seed=2, epochs=2))
    np.testing.assert_array_equal(outcome.section("delta").vector(), np.full(2, 60, np.float32))
    assert outcome.local_steps == 6


def test_equal_inputs_give_equal_bytes(rig):
    assert run(rig, rig.task()).encode() == run(rig, rig.task()).encode()


@pytest.mark.parametrize("codec", ["float32", "float16"])
def test_the_sections_are_written_with_the_tasks_codec(rig, codec):
    codecs = (SectionCodec("delta", codec), SectionCodec("statistics", "float32"))
    sections = run(rig, rig.task(codecs=codecs)).sections
    assert {section.name: section.codec for section in sections} == {"delta": codec, "statistics": "float32"}


def test_a_section_whose_codec_the_task_does_not_name_is_written_as_float32(rig):
    assert {section.codec for section in run(rig, rig.task(codecs=())).sections} == {"float32"}


def test_the_weight_section_is_clipped_and_the_statistics_are_not(rig):
    outcome = run(rig, rig.task(clip_norm=1.0))
    assert np.linalg.norm(outcome.section("delta").vector()) == pytest.approx(1.0)
    unclipped = run(rig, rig.task())
    assert outcome.section("statistics") == unclipped.section("statistics")


@given(
    arrays.arrays(np.float32, st.integers(0, 20), elements=st.floats(-(2.0**60), 2.0**60, width=32)),
    st.floats(2.0**-10, 2.0**20, width=32),
)
def test_clipping_bounds_the_norm_and_keeps_the_direction(vector, bound):
    clipped = _clipped(vector, bound)
    before, after = (float(np.linalg.norm(each.astype(np.float64))) for each in (vector, clipped))
    assert after <= bound * 1.0001
    if before <= bound * 0.9999:
        assert clipped is vector
    assert np.all(np.sign(clipped) * np.sign(vector) >= 0)


def test_without_a_bound_nothing_is_clipped():
    vector = np.full(3, 1e9, np.float32)
    assert _clipped(vector, 0.0) is vector


def test_evaluation_sends_states_and_no_sections(rig):
    outcome = run(rig, rig.task(kind=TaskKind.EVALUATE))
    assert outcome.status == OutcomeStatus.DONE
    assert outcome.sections == ()
    assert outcome.num_examples == 4
    assert rig.trainer.trained == 0


def test_a_model_with_another_layout_than_the_tasks_is_refused(rig):
    with pytest.raises(HashMismatchError):
        run(rig, rig.task(layout_hash="1" * 64))
    with pytest.raises(HashMismatchError):
        run(rig, rig.task(graph_hash="1" * 64))


def test_weights_of_another_length_are_refused(rig):
    with pytest.raises(HashMismatchError):
        run(rig, rig.task(), base=np.zeros(4, np.float32))


def test_a_loss_that_is_not_finite_fails_the_task(rig):
    rig.trainer.loss = float("nan")
    outcome = run(rig, rig.task())
    assert (outcome.status, outcome.reason) == (OutcomeStatus.FAILED, Reason.DIVERGED)
    assert outcome.metrics == ()


@pytest.mark.parametrize(
    ("error", "status", "reason"),
    [
        (TaskDeclinedError(Reason.NO_DATA, ""), OutcomeStatus.DECLINED, Reason.NO_DATA),
        (InvalidSettingError(""), OutcomeStatus.DECLINED, Reason.UNSUPPORTED_TASK),
        (DataError(""), OutcomeStatus.FAILED, Reason.DATA_MISMATCH),
        (DataNotReadyError(""), OutcomeStatus.DECLINED, Reason.NOT_READY),
        (HashMismatchError(""), OutcomeStatus.FAILED, Reason.HASH_MISMATCH),
        (ModelFileError(""), OutcomeStatus.FAILED, Reason.UNSUPPORTED_MODEL),
        (RuntimeFailure(""), OutcomeStatus.FAILED, Reason.UNSUPPORTED_MODEL),
        (MemoryError(), OutcomeStatus.FAILED, Reason.OUT_OF_MEMORY),
        (StorageError(""), OutcomeStatus.FAILED, Reason.INTERNAL),
        (KeyError("x"), OutcomeStatus.FAILED, Reason.INTERNAL),
    ],
)
def test_every_error_has_a_reason_from_the_list(error, status, reason):
    assert reason_for(error) == (status, reason)


def test_a_full_disk_is_told_apart():
    cause = OSError(errno.ENOSPC, "No space left on device")
    error = storage_error(cause, "write", "x")
    error.__cause__ = cause
    assert reason_for(error) == (OutcomeStatus.FAILED, Reason.OUT_OF_DISK)
