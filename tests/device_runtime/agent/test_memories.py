"""What a device remembers of a run matches the outcomes that were folded, whatever happens in between."""

from __future__ import annotations

import json
import stat
from dataclasses import replace

import numpy as np
import pytest

from edgefl.errors import MessageError, StorageError
from edgefl.layout import Parameter, ParameterLayout
from edgefl.wire.messages import Correction, ExtraVector, OutcomeStatus, Reason, SectionCodec
from edgefl_device_runtime.agent.memories import Memories
from edgefl_device_runtime.tasks import RunMemory

MEMORY = RunMemory(
    {"own/kernel": np.arange(6, dtype=np.float32).reshape(2, 3)}, np.ones(4, np.float32), np.full(4, 2.5, np.float32)
)


def assert_equal(ours: RunMemory, other: RunMemory) -> None:
    assert ours.local.keys() == other.local.keys()
    for name in ours.local:
        np.testing.assert_array_equal(ours.local[name], other.local[name])
    np.testing.assert_array_equal(ours.control, other.control)
    np.testing.assert_array_equal(ours.residual, other.residual)


def test_a_memory_is_found_by_run_and_task_by_another_process_too(tmp_path):
    Memories(tmp_path / "runs").keep("r", "t", MEMORY)
    assert_equal(Memories(tmp_path / "runs").recall("r", "t"), MEMORY)
    assert Memories(tmp_path / "runs").recall("other", "t") is None


def test_only_the_owner_can_read_it(tmp_path):
    Memories(tmp_path / "runs").keep("r", "t", MEMORY)
    (file,) = (tmp_path / "runs").iterdir()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_the_names_that_a_server_gives_are_no_paths(tmp_path):
    memories = Memories(tmp_path / "state" / "runs")
    with pytest.raises(MessageError):
        memories.keep("../../run", "t", MEMORY)
    with pytest.raises(MessageError):
        memories.recall("../../run", "t")
    memories.keep("run", "../../task", MEMORY)
    assert_equal(memories.recall("run", "../../task"), MEMORY)
    assert [path.name for path in tmp_path.iterdir()] == ["state"]
    assert len(list((tmp_path / "state" / "runs").iterdir())) == 1


def test_recalling_a_task_keeps_what_may_be_asked_for_later(tmp_path):
    memories = Memories(tmp_path)
    for task in ("t1", "t2", "t3", "t4"):
        memories.keep("r", task, MEMORY)
    assert memories.recall("r", "t3", ("t1", "t2")).vectors
    assert memories.recall("r", "t2", ("t1",)).vectors
    assert memories.recall("r", "t3", ("t1", "t2")) is None
    assert memories.recall("r", "t1").vectors
    assert memories.recall("r", "t4") is None


def test_recalling_one_task_forgets_the_runs_other_ones(tmp_path):
    memories = Memories(tmp_path)
    for task in ("t1", "t2"):
        memories.keep("r", task, MEMORY)
    memories.keep("another", "t1", MEMORY)
    assert memories.recall("r", "t1").vectors
    assert memories.recall("r", "t2") is None
    assert memories.recall("another", "t1").vectors


def test_a_run_of_which_nothing_was_folded_starts_anew(tmp_path):
    memories = Memories(tmp_path)
    memories.keep("r", "t1", MEMORY)
    assert memories.recall("r", "").vectors == ()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("damage", [b"", b"nonsense", None])
def test_a_damaged_memory_counts_as_lost(tmp_path, damage):
    memories = Memories(tmp_path)
    memories.keep("r", "t", MEMORY)
    (file,) = tmp_path.iterdir()
    data = file.read_bytes()
    file.write_bytes(data[: len(data) // 2] if damage is None else damage)
    assert memories.recall("r", "t") is None


def test_whatever_a_disk_makes_of_a_memory_counts_as_lost(tmp_path):
    memories = Memories(tmp_path)
    memories.keep("r", "t", MEMORY)
    (file,) = tmp_path.iterdir()
    data, lost = file.read_bytes(), 0
    for place in range(len(data)):
        file.write_bytes(data[:place] + bytes([data[place] ^ 0xFF]) + data[place + 1 :])
        lost += memories.recall("r", "t") is None
    assert lost > 100


def test_ids_with_dots_are_kept_apart_and_only_the_named_run_is_forgotten(tmp_path):
    memories = Memories(tmp_path)
    for run in ("a", "a.b", "a.b.c"):
        memories.keep(run, "t", MEMORY)
    assert memories.runs() == ["a", "a.b", "a.b.c"]
    memories.forget("a.b")
    assert memories.runs() == ["a", "a.b.c"]
    assert memories.recall("a", "t") is not None


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

    def killed(*arguments):
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


def test_at_most_two_memories_of_a_run_are_kept(local_rig):
    rig = local_rig
    for number in range(1, 5):
        previous = f"t{number - 1}" if number > 1 else ""
        own_value_after(rig, rig.task(f"t{number}", continues=previous))
        assert len(list((rig.folder / "state" / "runs").iterdir())) <= 2


def remembered(rig):
    return Memories(rig.folder / "state" / "runs").runs()


def test_what_the_server_says_is_over_is_forgotten_and_nothing_else(local_rig):
    rig = local_rig
    for run in ("r1", "r2", "r3"):
        own_value_after(rig, rig.task(f"{run}-t", run=run, continues=""))
    rig.server.tasks = []
    rig.device().step()  # no run is active, and no run is over: a server that was put back to a copy
    assert remembered(rig) == ["r1", "r2", "r3"]
    rig.server.ended = {"r2", "somebody-elses"}
    rig.device().step()
    assert remembered(rig) == ["r1", "r3"]
    bodies = [json.loads(request.body) for request in rig.server.asked("POST", "/next")]
    assert bodies[0] == {"wait": 0.0, "until_idle": False}
    assert bodies[-1] == {"wait": 0.0, "until_idle": False, "remembers": ["r1", "r2", "r3"]}


def test_a_run_that_was_not_asked_about_is_not_forgotten(local_rig, monkeypatch):
    rig = local_rig
    own_value_after(rig, rig.task("t1", continues=""))
    nothing = {"Retry-After": "0", "EdgeFL-Active-Runs": "0", "EdgeFL-Ended-Runs": "other, ../r,"}
    monkeypatch.setattr(rig.server, "reply", lambda request: (204, b"", nothing))
    device = rig.device(token=None)
    device.step()
    assert remembered(rig) == ["r"]


def test_more_runs_than_one_poll_may_name_are_asked_about_in_turns(local_rig):
    rig = local_rig
    memories = Memories(rig.folder / "state" / "runs")
    runs = [f"run-{number:03}" for number in range(150)]
    for run in [*runs, "x" * 100]:
        memories.keep(run, "t", MEMORY)
    rig.server.ended = set(runs)
    device = rig.device()
    for _ in range(3):
        device.step()
    assert remembered(rig) == ["x" * 100]
    asked = [json.loads(request.body)["remembers"] for request in rig.server.asked("POST", "/next")]
    assert [len(each) for each in asked] == [64, 64, 22]


def test_nine_and_more_interleaved_runs_of_scaffold_end_as_each_run_alone(scaffold_rig):
    rig = scaffold_rig
    runs, rounds = [f"run{number}" for number in range(12)], 3

    def control_after(state, run, number):
        """One round of a run: the server's control stays zero, so that all differs by what the device keeps."""
        previous = f"{run}-{number - 1}" if number > 1 else ""
        task = replace(scaffold_task(rig, f"{run}-{number}", previous, [0.25, 0.5]), run=run, seed=len(run) + number)
        rig.server.tasks = [task]
        assert rig.device(state=rig.folder / state).step().result == "accepted"
        return rig.trainer.correction.tolist(), rig.server.outcomes[f"{run}-{number}"][-1]

    together = {
        (run, number): control_after("together", run, number) for number in range(1, rounds + 1) for run in runs
    }
    alone = {
        (run, number): control_after(f"alone-{run}", run, number) for run in runs for number in range(1, rounds + 1)
    }
    assert together == alone
    assert all(together[run, 3][0] != [0.25, 0.5] for run in runs)


@pytest.mark.parametrize("damage", ["gone", "damaged"])
def test_a_run_whose_memory_is_lost_fails_in_sight_instead_of_starting_from_zeros(local_rig, damage):
    rig = local_rig
    own_value_after(rig, rig.task("t1", continues=""))
    (file,) = (rig.folder / "state" / "runs").iterdir()
    file.unlink() if damage == "gone" else file.write_bytes(b"PK")
    rig.server.tasks = [rig.task("t2", continues="t1")]
    rig.device().step()
    outcome = rig.server.decoded("t2")
    assert (outcome.status, outcome.reason, outcome.sections) == (OutcomeStatus.FAILED, Reason.MEMORY_LOST, ())
    assert rig.trainer.trained == 1
    assert [line for line in rig.lines if "What this device kept of the run r is lost" in line]
    # It blocks that run only.
    assert own_value_after(rig, rig.task("u1", run="other", continues="")) == 3


def test_a_run_without_anything_to_remember_goes_on_whatever_is_named(rig):
    rig.server.tasks = [rig.task("t2", continues="t1")]
    assert rig.device().step().result == "accepted"


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
    rig.server.tasks = [
        replace(task, codecs=tuple(SectionCodec(name, "float16") for name in ("delta", "statistics", "control")))
    ]
    rig.device().step()
    sent = rig.server.decoded("t1").section("control").vector()
    memory = Memories(rig.folder / "state" / "runs").recall("r", "t1")
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


def test_what_could_never_be_asked_about_again_is_not_kept_and_its_task_declined(local_rig):
    rig = local_rig
    for run, status in (("r" * 65, OutcomeStatus.DECLINED), ("r" * 64, OutcomeStatus.DONE)):
        rig.server.tasks = [rig.task("t1", run=run, continues="")]
        rig.device().step()
        assert rig.server.decoded("t1").status is status
    assert remembered(rig) == ["r" * 64]
    assert rig.trainer.trained == 1


def test_a_run_that_keeps_nothing_may_have_a_long_id(rig):
    rig.server.tasks = [rig.task(run="r" * 128, continues="")]
    assert rig.device().step().result == "accepted"


def test_what_would_leave_too_little_of_the_disk_fails_the_task_before_it_is_trained(local_rig, quick, monkeypatch):
    rig = local_rig
    device = rig.device(settings=replace(quick, spare_disk=1000))
    monkeypatch.setattr("edgefl_device_runtime.agent.memories.free_bytes", lambda folder: 1000 + 3)
    rig.server.tasks = [rig.task("t1", continues="")]
    device.step()
    outcome = rig.server.decoded("t1")
    assert (outcome.status, outcome.reason) == (OutcomeStatus.FAILED, Reason.OUT_OF_DISK)
    assert rig.trainer.trained == 0
    assert remembered(rig) == []
    with pytest.raises(StorageError, match="Could not store"):
        Memories(rig.folder / "state" / "runs", 1000).keep("r", "t", MEMORY)


def stc_task(rig, name, continues):
    return rig.task(name, codecs=(SectionCodec("delta", "stc-0.5"),), continues=continues)


def sent_by_three_tasks(rig, step):
    """The payloads of three tasks' deltas, one after the other; ``step`` does what is to be done for each."""
    for name, continues in (("t1", ""), ("t2", "t1"), ("t3", "t2")):
        rig.server.tasks = [stc_task(rig, name, continues)]
        step(rig)
    return [bytes(rig.server.decoded(name).section("delta").payload) for name in ("t1", "t2", "t3")]


def test_what_a_codec_holds_back_is_the_same_through_crashes_before_and_after_the_outcome_was_kept(rig):
    class Killed(BaseException):
        pass

    def killed(*arguments):
        raise Killed

    def at_once(rig):
        rig.device().step()

    def with_crashes(rig):
        for broken in ("_keep", "_send"):
            device = rig.device()
            setattr(device, broken, killed)
            with pytest.raises(Killed):
                device.step()
        rig.device().step()

    smooth = sent_by_three_tasks(rig, at_once)
    assert len(set(smooth)) > 1  # it is not the same that is held back each time
    rig.server.outcomes.clear()
    for path in (rig.folder / "state" / "runs").iterdir():
        path.unlink()
    assert sent_by_three_tasks(rig, with_crashes) == smooth
