"""What a device remembers of a run matches the outcomes that were folded, whatever happens in between."""

from __future__ import annotations

import os
import stat

import numpy as np
import pytest

from edgefl.hashing import sha256
from edgefl.layout import Parameter, ParameterLayout
from edgefl.wire.messages import Correction, ExtraVector, OutcomeStatus, Reason
from edgefl_device_runtime.agent.memory import Memories, Memory

MEMORY = Memory({"own/kernel": np.arange(6, dtype=np.float32).reshape(2, 3)}, np.ones(4, np.float32))


def assert_equal(ours: Memory, other: Memory) -> None:
    assert ours.local.keys() == other.local.keys()
    for name in ours.local:
        np.testing.assert_array_equal(ours.local[name], other.local[name])
    np.testing.assert_array_equal(ours.control, other.control)


def test_a_memory_is_found_by_run_and_task_by_another_process_too(tmp_path):
    Memories(tmp_path / "runs", 8).keep("r", "t", MEMORY)
    assert_equal(Memories(tmp_path / "runs", 8).recall("r", "t"), MEMORY)
    assert Memories(tmp_path / "runs", 8).recall("other", "t").vectors == ()


def test_only_the_owner_can_read_it(tmp_path):
    Memories(tmp_path / "runs", 8).keep("r", "t", MEMORY)
    (file,) = (tmp_path / "runs").iterdir()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_the_names_that_a_server_gives_are_no_paths(tmp_path):
    memories = Memories(tmp_path / "state" / "runs", 8)
    memories.keep("../../run", "../../task", MEMORY)
    assert_equal(memories.recall("../../run", "../../task"), MEMORY)
    assert [path.name for path in tmp_path.iterdir()] == ["state"]


def test_recalling_one_task_forgets_the_runs_other_ones(tmp_path):
    memories = Memories(tmp_path, 8)
    for task in ("t1", "t2"):
        memories.keep("r", task, MEMORY)
    memories.keep("another", "t1", MEMORY)
    assert memories.recall("r", "t1").vectors
    assert not memories.recall("r", "t2").vectors
    assert memories.recall("another", "t1").vectors


def test_a_run_of_which_nothing_was_folded_starts_anew(tmp_path):
    memories = Memories(tmp_path, 8)
    memories.keep("r", "t1", MEMORY)
    assert memories.recall("r", "").vectors == ()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("damage", [b"", b"nonsense", None])
def test_a_damaged_memory_counts_as_none(tmp_path, damage):
    memories = Memories(tmp_path, 8)
    memories.keep("r", "t", MEMORY)
    (file,) = tmp_path.iterdir()
    data = file.read_bytes()
    file.write_bytes(data[: len(data) // 2] if damage is None else damage)
    assert memories.recall("r", "t").vectors == ()


def test_runs_that_were_not_worked_on_for_longest_are_forgotten(tmp_path):
    memories = Memories(tmp_path, 3)
    for age, run in enumerate(["a", "b", "c", "d"]):
        memories.keep(run, "t", MEMORY)
        for file in tmp_path.glob(f"{sha256(run.encode())[:32]}.*"):
            os.utime(file, (1000 + age, 1000 + age))
    assert [run for run in "abcd" if memories.recall(run, "t").vectors] == ["b", "c", "d"]


def with_local_parameters(rig, manifest, fake_trainer):
    parameters = (*manifest().parameters, Parameter("own", "s/own", (1,), shared=False))
    layout = ParameterLayout(parameters)
    rig.trainer = fake_trainer(manifest(parameters=parameters))
    assert layout.hash == rig.trainer.manifest.layout_hash
    return rig


@pytest.fixture
def local_rig(rig, manifest, fake_trainer):
    return with_local_parameters(rig, manifest, fake_trainer)


def own_value_after(rig, *tasks):
    """Does the tasks; the local parameter that the last one ended with: 3 more than it began with."""
    for task in tasks:
        rig.server.tasks = [task]
        rig.device().step()
    return float(rig.trainer.local_parameters["own"][0])


def test_local_parameters_go_on_from_the_task_that_the_server_names(local_rig):
    rig = local_rig
    assert own_value_after(rig, rig.task("t1", continues="")) == 3
    assert own_value_after(rig, rig.task("t2", continues="t1")) == 6
    assert own_value_after(rig, rig.task("t3", continues="t2")) == 9


def test_an_accepted_task_that_the_server_then_discarded_is_not_continued(local_rig):
    rig = local_rig
    assert own_value_after(rig, rig.task("t1", continues="")) == 3
    assert own_value_after(rig, rig.task("t2", continues="t1"), rig.task("t3", continues="t1")) == 6


@pytest.mark.parametrize("answer", [(409, "surplus"), (409, "stale"), (422, "norm_exceeded"), (413, "too_large")])
def test_a_refused_outcome_leaves_the_local_parameters_as_they_were(local_rig, answer):
    rig = local_rig
    rig.server.refused["t2"] = answer
    assert own_value_after(rig, rig.task("t1", continues="")) == 3
    assert own_value_after(rig, rig.task("t2", continues="t1"), rig.task("t3", continues="t1")) == 6


def test_a_device_killed_before_it_sends_repeats_the_task_from_where_it_began(local_rig, fault):
    rig = local_rig
    own_value_after(rig, rig.task("t1", continues=""))
    rig.server.tasks = [rig.task("t2", continues="t1")]

    class Killed(BaseException):
        pass

    device = rig.device()

    def killed(message):
        raise Killed

    device._keep = killed  # after the memory was written, before the outcome was
    with pytest.raises(Killed):
        device.step()
    assert own_value_after(rig, rig.task("t2", continues="t1")) == 6
    assert own_value_after(rig, rig.task("t3", continues="t2")) == 9


def test_a_device_killed_before_the_answer_goes_on_from_what_it_had_sent(local_rig):
    rig = local_rig
    rig.server.tasks = [rig.task("t1", continues="")]

    class Killed(BaseException):
        pass

    device = rig.device()

    def killed(outcome, message, report):
        raise Killed

    device._send = killed
    with pytest.raises(Killed):
        device.step()
    rig.server.tasks = []
    assert rig.device().step().result == "accepted"
    assert rig.trainer.trained == 1
    assert own_value_after(rig, rig.task("t2", continues="t1")) == 6


def test_runs_do_not_mix_and_each_starts_with_the_files_values(local_rig):
    rig = local_rig
    assert own_value_after(rig, rig.task("t1", continues="")) == 3
    assert own_value_after(rig, rig.task("u1", run="other", continues="")) == 3
    assert own_value_after(rig, rig.task("t2", continues="t1")) == 6


def test_at_most_two_memories_of_a_run_are_kept_and_none_when_no_run_is_active(local_rig):
    rig = local_rig
    for number in range(1, 5):
        previous = f"t{number - 1}" if number > 1 else ""
        own_value_after(rig, rig.task(f"t{number}", continues=previous))
        assert len(list((rig.folder / "state" / "runs").iterdir())) <= 2
    rig.server.tasks = []
    rig.device().step()
    assert list((rig.folder / "state" / "runs").iterdir()) == []


def test_nothing_of_a_local_parameter_is_sent(local_rig):
    rig = local_rig
    own_value_after(rig, rig.task("t1", continues=""))
    plain = {section.name: section.length for section in rig.server.decoded("t1").sections}
    assert plain == {"delta": 2, "statistics": 1}


def test_a_memory_that_cannot_be_written_fails_the_task_instead_of_being_lost(local_rig):
    rig = local_rig
    device = rig.device()
    (rig.folder / "state" / "runs").write_text("in the way")
    rig.server.tasks = [rig.task("t1", continues="")]
    device.step()
    outcome = rig.server.decoded("t1")
    assert (outcome.status, outcome.sections) == (OutcomeStatus.FAILED, ())


def test_a_server_that_does_not_say_what_is_continued_gets_no_work_on_local_parameters(local_rig):
    rig = local_rig
    rig.server.tasks = [rig.task("t1")]
    rig.device().step()
    outcome = rig.server.decoded("t1")
    assert (outcome.status, outcome.reason) == (OutcomeStatus.DECLINED, Reason.UNSUPPORTED_TASK)


def test_a_model_of_which_nothing_is_shared_is_declined(rig, manifest, fake_trainer):
    rig.trainer = fake_trainer(manifest(parameters=(Parameter("own", "s/own", (2, 1), shared=False),)))
    rig.server.tasks = [rig.task("t1", continues="")]
    rig.device().step()
    outcome = rig.server.decoded("t1")
    assert (outcome.status, outcome.reason) == (OutcomeStatus.DECLINED, Reason.UNSUPPORTED_MODEL)


def test_a_plain_task_of_a_plain_model_keeps_nothing(rig):
    rig.server.tasks = [rig.task()]
    rig.device().step()
    assert not (rig.folder / "state" / "runs").exists()
    assert rig.trainer.correction is None


def scaffold_task(rig, name, continues, control):
    content = rig.server.add_content(np.array(control, "<f4").tobytes())
    return rig.task(
        name, correction=Correction.SCAFFOLD, extra_vectors=(ExtraVector("control", content),), continues=continues
    )


@pytest.fixture
def scaffold_rig(rig, manifest, fake_trainer):
    optimizer = {"class_name": "SGD", "config": {"learning_rate": 0.5}}
    made = manifest(optimizer=optimizer, learning_rate=0.5)
    made.signatures["set_correction"] = made.signatures["train"]
    rig.trainer = fake_trainer(made)
    return rig


def test_the_control_variate_of_scaffold_goes_on_from_task_to_task(scaffold_rig):
    rig = scaffold_rig
    rig.server.tasks = [scaffold_task(rig, "t1", "", [1.0, 2.0])]
    rig.device().step()
    np.testing.assert_array_equal(rig.trainer.correction, [1, 2])
    # 3 steps of 13 each (see the trainer), learning rate 0.5: -c - delta / (K lr) = -c - 39 / 1.5
    first = np.array([-27, -28], np.float32)
    np.testing.assert_array_equal(rig.server.decoded("t1").section("control").vector(), first)
    rig.server.tasks = [scaffold_task(rig, "t2", "t1", [0.5, 0.5])]
    rig.device().step()
    np.testing.assert_array_equal(rig.trainer.correction, 0.5 - first)
    np.testing.assert_array_equal(rig.server.decoded("t2").section("control").vector(), [-26.5, -26.5])


def test_what_the_device_keeps_is_what_the_server_reads(scaffold_rig):
    rig = scaffold_rig
    task = scaffold_task(rig, "t1", "", [0.0001, 0.3])
    rig.server.tasks = [type(task)(**{**vars(task), "codec": "float16"})]
    rig.device().step()
    sent = rig.server.decoded("t1").section("control").vector()
    memory = Memories(rig.folder / "state" / "runs", 8).recall("r", "t1")
    np.testing.assert_array_equal(memory.control, sent)


def test_scaffold_with_another_optimizer_is_declined(scaffold_rig):
    rig = scaffold_rig
    rig.trainer.manifest.optimizer["class_name"] = "Adam"
    rig.server.tasks = [scaffold_task(rig, "t1", "", [1.0, 2.0])]
    rig.device().step()
    outcome = rig.server.decoded("t1")
    assert (outcome.status, outcome.reason) == (OutcomeStatus.DECLINED, Reason.UNSUPPORTED_MODEL)


def test_a_control_vector_of_another_length_fails_the_task(scaffold_rig):
    rig = scaffold_rig
    rig.server.tasks = [scaffold_task(rig, "t1", "", [1.0, 2.0, 3.0])]
    rig.device().step()
    assert rig.server.decoded("t1").reason == Reason.HASH_MISMATCH
