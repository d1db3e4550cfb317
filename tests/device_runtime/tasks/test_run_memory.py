"""Which memory of a run counts, which are kept, and when one is lost."""

from __future__ import annotations

import numpy as np
import pytest

from edgefl.wire.messages import OutcomeStatus, Reason, SectionCodec, TaskKind
from edgefl_device_runtime.tasks import RunMemory
from quadratic_trainer import LOCAL


@pytest.fixture
def device(make_device):
    return make_device(LOCAL)


def sections_of(result):
    assert result.error is None
    return {section.name: section.vector() for section in result.outcome.sections}


def own_value(device):
    return float(device.trainer.local_parameters["own"][0])


def test_local_parameters_go_on_from_the_task_that_the_server_names(device):
    for number, continues in enumerate(["", "t1", "t2"], 1):
        device.perform(device.task(f"t{number}", continues=continues))
        assert own_value(device) == 3 * number


def test_a_task_whose_outcome_was_not_folded_is_not_continued(device):
    device.perform(device.task("t1"))
    device.perform(device.task("t2", continues="t1"))
    device.perform(device.task("t3", continues="t1"))
    assert own_value(device) == 6
    assert set(device.remembered) == {"t1", "t3"}


def test_what_the_server_says_is_outstanding_is_kept_and_can_be_gone_on_from(device):
    device.perform(device.task("t1"))
    device.perform(device.task("t2", continues="t1"))
    device.perform(device.task("t3", continues="t2", outstanding=("t1",)))
    assert set(device.remembered) == {"t1", "t2", "t3"}
    device.perform(device.task("t4", continues="t1"))  # the others were discarded
    assert own_value(device) == 6
    assert set(device.remembered) == {"t1", "t4"}


def test_at_most_two_memories_are_kept(device):
    for number in range(1, 6):
        device.perform(device.task(f"t{number}", continues=f"t{number - 1}" if number > 1 else ""))
        assert len(device.remembered) <= 2


def test_a_run_of_which_nothing_was_folded_begins_again(device):
    device.perform(device.task("t1"))
    device.perform(device.task("t2"))
    assert own_value(device) == 3
    assert set(device.remembered) == {"t2"}


def test_nothing_is_kept_of_a_model_and_an_algorithm_that_need_no_memory(make_device):
    device = make_device()
    device.perform(device.task("t1"))
    assert device.remembered == {}
    assert device.perform(device.task("t2", continues="t1")).outcome.status == OutcomeStatus.DONE


@pytest.mark.parametrize("what", ["local parameters", "control variate"])
def test_a_lost_memory_fails_the_task_instead_of_starting_from_zeros(make_device, what):
    device = make_device(LOCAL) if what == "local parameters" else make_device()
    task = device.task if what == "local parameters" else device.scaffold_task
    control = None if what == "local parameters" else np.ones(4, np.float32)
    device.perform(task("t1"), control)
    device.remembered = {}
    result = device.perform(task("t2", continues="t1"), control)
    assert (result.outcome.status, result.outcome.reason) == (OutcomeStatus.FAILED, Reason.MEMORY_LOST)
    assert "What this device kept of the run r is lost" in str(result.error)
    assert device.trainer.trained == 1


def test_a_task_that_is_not_done_leaves_the_memories_as_they_were(device):
    device.perform(device.task("t1"))
    before = device.remembered
    result = device.perform(device.task("t2", continues="t1", codec="of a later server"))
    assert result.error is not None
    assert device.remembered == before


def test_an_evaluation_uses_the_memory_and_keeps_none_of_its_own(device):
    device.perform(device.task("t1"))
    device.perform(device.task("e1", kind=TaskKind.EVALUATE, continues="t1"))
    assert own_value(device) == 3
    assert set(device.remembered) == {"t1"}


def test_the_control_variate_of_scaffold_goes_on_from_task_to_task(device):
    device.perform(device.scaffold_task("t1"), np.full(4, 0.5, np.float32))
    own = device.remembered["t1"].control
    assert own.any()
    device.perform(device.scaffold_task("t2", continues="t1"), np.full(4, 0.25, np.float32))
    np.testing.assert_array_equal(device.trainer.correction, np.float32(0.25) - own)


@pytest.mark.parametrize("codec", ["float32", "float16"])
def test_what_scaffold_keeps_is_what_the_server_reads(device, codec):
    task = device.scaffold_task("t1", codec=codec)
    result = device.perform(task, np.full(4, 0.3, np.float32))
    np.testing.assert_array_equal(result.remembered["t1"].control, result.outcome.section("control").vector())


STC = (SectionCodec("delta", "stc-0.25"),)  # one of the four elements


def test_what_error_feedback_leaves_out_is_added_to_the_next_update(device):
    def learnt(task_id, **more):
        return sections_of(device.perform(device.task(task_id, **more)))["delta"]

    exact = learnt("t0")
    first = learnt("t1", codecs=STC)
    assert np.count_nonzero(first) == 1
    np.testing.assert_array_equal(device.remembered["t1"].residual, exact - first)
    second = learnt("t2", codecs=STC, continues="t1")
    np.testing.assert_array_equal(device.remembered["t2"].residual, (exact + (exact - first)) - second)
    # After some tasks, what was sent is what was learnt but for what is still held back.
    sent, before = first + second, "t2"
    for number in range(3, 9):
        sent, before = sent + learnt(f"t{number}", codecs=STC, continues=before), f"t{number}"
    np.testing.assert_allclose(sent + device.remembered["t8"].residual, 8 * exact, rtol=1e-5)


def test_an_update_that_did_not_come_to_count_takes_nothing_out_of_what_is_held_back(device):
    device.perform(device.task("t1", codecs=STC))
    kept = device.remembered["t1"].residual
    lost = device.perform(device.task("t2", codecs=STC, continues="t1")).outcome
    again = device.perform(device.task("t3", codecs=STC, continues="t1"))  # the server took no t2
    assert bytes(again.outcome.section("delta").payload) == bytes(lost.section("delta").payload)
    np.testing.assert_array_equal(device.remembered["t1"].residual, kept)


def test_a_residual_that_is_lost_or_damaged_costs_what_it_held_and_nothing_else(make_device):
    device = make_device()
    fresh = device.perform(device.task("t1", codecs=STC)).outcome
    for remembered in ({}, {"t1": RunMemory({}, None, np.ones(7, np.float32))}):
        device.remembered = remembered
        result = device.perform(device.task("t2", codecs=STC, continues="t1"))
        assert bytes(result.outcome.section("delta").payload) == bytes(fresh.section("delta").payload)


def test_a_memory_is_the_same_out_of_its_arrays():
    vectors = np.arange(3, dtype=np.float32), np.ones(2, np.float32)
    for memory in (RunMemory({"own/kernel": vectors[0]}, *vectors), RunMemory(residual=vectors[1]), RunMemory()):
        found = RunMemory.from_arrays(memory.to_arrays())
        assert sorted(found.local) == sorted(memory.local)
        for one, other in zip(found.vectors, memory.vectors, strict=True):
            np.testing.assert_array_equal(one, other)
    with pytest.raises(ValueError, match="arrays other"):
        RunMemory.from_arrays({"other": vectors[0]})


def test_memories_of_another_length_are_no_memories_of_this_model(device):
    device.remembered = {"t1": RunMemory({}, np.ones(7, np.float32))}
    result = device.perform(device.scaffold_task("t2", continues="t1"), np.ones(4, np.float32))
    assert result.outcome.reason == Reason.HASH_MISMATCH
