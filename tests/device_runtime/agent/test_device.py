"""The loop of a device against a server that misbehaves."""

from __future__ import annotations

import errno
import json
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edgefl.errors import (
    AuthenticationError,
    InvalidSettingError,
    MissingDependencyError,
    StorageError,
)
from edgefl.wire.messages import (
    Correction,
    ExtraVector,
    Outcome,
    OutcomeStatus,
    Reason,
    Section,
    SectionCodec,
    TaskKind,
)
from edgefl_device_runtime.agent.cache import Cache
from edgefl_device_runtime.agent.device import Device
from edgefl_device_runtime.agent.memories import Memories
from edgefl_device_runtime.agent.state import StateFolder
from edgefl_device_runtime.agent.status import status_of
from edgefl_device_runtime.tasks import RunMemory

GOLDEN = Path(__file__).parents[2] / "core" / "golden"


def test_a_task_is_done_and_its_outcome_sent(rig):
    rig.server.tasks = [rig.task()]
    report = rig.device().step()
    outcome = rig.server.decoded("r-1-d")
    assert report.result == "accepted"
    assert (outcome.status, outcome.num_examples, outcome.local_steps) == (OutcomeStatus.DONE, 5, 3)
    assert outcome.base_weights_hash == rig.weights_hash
    # 3 steps, each of seed 3 plus ten ones; the weight section is the first two, the statistic the third.
    np.testing.assert_array_equal(outcome.section("delta").vector(), np.full(2, 39.0, np.float32))
    np.testing.assert_array_equal(outcome.section("statistics").vector(), np.full(1, 39.0, np.float32))
    assert {state.name: state.values for state in outcome.metrics} == {"loss_sum": (3.0,), "rows": (5.0,)}


def test_run_ends_when_no_run_is_active(rig):
    rig.server.tasks = [rig.task("a"), rig.task("b")]
    summary = rig.device().run(until_idle=True)
    assert summary.tasks_done == 2
    assert list(rig.server.outcomes) == ["a", "b"]
    assert summary.to_json()["tasks"] == {"accepted": 2}


def test_a_device_tells_the_server_that_it_does_not_end_with_the_work(rig):
    rig.device().run(until_idle=True)
    rig.device().step()
    polls = [json.loads(request.body) for request in rig.server.asked("POST", "/tasks/next")]
    assert polls == [{"wait": 0.0}, {"wait": 0.0, "until_idle": False}]


def test_one_line_is_reported_for_a_task(rig):
    rig.server.tasks = [rig.task()]
    rig.device().step()
    (line,) = rig.lines
    assert line.startswith("Round 1 of r: done, accepted; loss 0.6000, 5 examples, 3 steps, ")


def test_the_secret_goes_to_the_server_only_as_a_hash_when_enrolling(rig):
    device = rig.device()
    device.step()
    (enrolment,) = rig.server.asked("POST", "/devices")
    secret = device._identity.secret
    assert secret.encode() not in enrolment.body
    assert secret not in str(enrolment.headers)


def test_the_bytes_counted_are_those_of_the_bodies(rig):
    rig.server.tasks = [rig.task()]
    summary = rig.device().run(until_idle=True)
    assert summary.bytes_up == sum(len(request.body) for request in rig.server.requests)
    assert summary.bytes_down > len(rig.server.contents[rig.model_hash])


def test_model_and_weights_are_downloaded_once(rig):
    rig.server.tasks = [rig.task("a"), rig.task("b")]
    rig.device().run(until_idle=True)
    rig.server.tasks = [rig.task("c")]
    rig.device().run(until_idle=True)
    assert len(rig.server.asked("GET", "/models/")) == 1
    assert len(rig.server.asked("GET", "/weights/")) == 1
    assert rig.loaded == [rig.server.contents[rig.model_hash]] * 2  # once in a process


@pytest.mark.parametrize("path", ["/devices", "/next", "/outcome"])
@pytest.mark.parametrize("kind", ["drop", "lose_reply", 500, 503, 429])
def test_calls_are_repeated_until_the_server_answers(rig, fault, path, kind):
    rig.server.tasks = [rig.task()]
    rig.server.faults = [fault("PUT" if path == "/outcome" else "POST", path, kind, times=3)]
    summary = rig.device().run(until_idle=True)
    assert summary.tasks_done == 1
    assert rig.trainer.trained == 1
    assert len(set(rig.server.outcomes["r-1-d"])) == 1
    assert [line for line in rig.lines if "Trying again" in line]
    assert [line for line in rig.lines if "answers again" in line]


@pytest.mark.parametrize("path", ["/models/", "/weights/"])
@pytest.mark.parametrize("kind", ["drop", "truncate", 500])
def test_downloads_are_repeated_until_they_are_complete(rig, fault, path, kind):
    rig.server.tasks = [rig.task()]
    rig.server.faults = [fault("GET", path, kind, times=3)]
    assert rig.device().run(until_idle=True).tasks_done == 1
    assert rig.loaded == [rig.server.contents[rig.model_hash]]


def test_content_with_another_hash_fails_the_task(rig, fault):
    rig.server.tasks = [rig.task()]
    rig.server.faults = [fault("GET", "/weights/", "corrupt", times=9)]
    assert rig.device().step().result == "reported"
    outcome = rig.server.decoded("r-1-d")
    assert (outcome.status, outcome.reason) == (OutcomeStatus.FAILED, Reason.HASH_MISMATCH)
    assert not outcome.sections


def test_a_task_whose_content_is_gone_is_given_up(rig):
    rig.server.tasks = [rig.task()]
    del rig.server.contents[rig.weights_hash]
    assert rig.device().step().result == "abandoned"
    assert not rig.server.outcomes


def test_an_outcome_that_was_not_sent_survives_a_crash_and_is_not_trained_again(rig, monkeypatch):
    rig.server.tasks = [rig.task()]
    device = rig.device()
    with monkeypatch.context() as patch:
        patch.setattr(device, "_send", _crash)
        with pytest.raises(KeyboardInterrupt):
            device.step()
    assert rig.trainer.trained == 1
    report = rig.device().step()
    assert report.result == "accepted"
    assert rig.trainer.trained == 1
    assert list(rig.server.outcomes) == ["r-1-d"]


def test_a_crash_after_the_server_has_the_outcome_sends_the_same_bytes_again(rig, monkeypatch):
    rig.server.tasks = [rig.task()]
    device = rig.device()
    with monkeypatch.context() as patch:
        patch.setattr(device._state, "drop_outcome", _crash)
        with pytest.raises(KeyboardInterrupt):
            device.step()
    rig.device().run(until_idle=True)
    first, second = rig.server.outcomes["r-1-d"]
    assert first == second


def test_a_crash_while_training_trains_to_the_same_bytes(rig):
    rig.server.tasks = [rig.task()]
    rig.trainer.during_step = _crash
    with pytest.raises(KeyboardInterrupt):
        rig.device().step()
    assert not rig.server.outcomes
    rig.trainer.during_step = None
    rig.device().step()
    rig.server.tasks = [rig.task()]
    rig.device(state=rig.folder / "undisturbed").step()
    first, second = rig.server.outcomes["r-1-d"]
    assert first == second


@pytest.mark.parametrize(
    ("status", "code", "result"),
    [
        (409, "surplus", "surplus"),
        (409, "stale", "stale"),
        (410, "abandoned", "abandoned"),
        (422, "conflicting_outcome", "refused: conflicting_outcome"),
    ],
)
def test_what_the_server_does_not_take_is_dropped(rig, status, code, result):
    rig.server.tasks = [rig.task()]
    rig.server.refused["r-1-d"] = (status, code)
    device = rig.device()
    assert device.step().result == result
    assert device.step() is None
    assert len(rig.server.asked("PUT", "")) == 1


@pytest.mark.parametrize(
    ("status", "code", "reason"),
    [
        (413, "too_large", Reason.INTERNAL),
        (422, "norm_exceeded", Reason.DIVERGED),
        (422, "wrong_layout", Reason.HASH_MISMATCH),
    ],
)
def test_an_outcome_that_is_refused_is_followed_by_a_failure_so_that_nobody_waits(rig, fault, status, code, reason):
    rig.server.tasks = [rig.task()]
    rig.server.faults = [fault("PUT", "/outcome", status, code=code)]
    device = rig.device()
    assert device.step().result == f"refused: {code}"
    outcome = rig.server.decoded("r-1-d")
    assert (outcome.status, outcome.reason) == (OutcomeStatus.FAILED, reason)
    assert not outcome.sections
    assert rig.trainer.trained == 1
    assert device.step() is None


def test_a_failure_that_is_refused_too_is_dropped(rig):
    rig.server.tasks = [rig.task()]
    rig.server.refused["r-1-d"] = (422, "malformed")
    device = rig.device()
    assert device.step().result == "refused: malformed"
    assert device.step() is None
    assert len(rig.server.asked("PUT", "")) == 2


def test_training_ends_when_the_server_gives_the_task_up(rig):
    rig.server.tasks = [rig.task(epochs=1000)]
    rig.server.abandoned = {"r-1-d"}
    rig.trainer.during_step = lambda: rig.server.renewed.wait(5)
    assert rig.device().step().result == "abandoned"
    assert not rig.server.outcomes


def test_the_lease_is_renewed_while_training(rig):
    rig.server.tasks = [rig.task()]
    rig.trainer.during_step = lambda: rig.server.renewed.wait(5)
    assert rig.device().step().result == "accepted"
    assert "r-1-d" in rig.server.leases


def test_a_lost_network_during_training_costs_nothing(rig, fault):
    rig.server.tasks = [rig.task()]
    rig.server.faults = [fault("POST", "/lease", "drop", times=2)]
    rig.trainer.during_step = lambda: rig.server.renewed.wait(5)
    assert rig.device().step().result == "accepted"


@pytest.mark.parametrize(("advice", "rest"), [("7", 7.0), ("7.5", 7.5), ("999999", 3600.0), ("soon", 5.0)])
def test_the_device_comes_back_when_the_server_says(rig, monkeypatch, advice, rest):
    rests = []
    rig.server.retry_after = advice
    monkeypatch.setattr("edgefl_device_runtime.agent.device.time.sleep", lambda seconds: _stop_after(rests, seconds))
    device = rig.device()
    with pytest.raises(KeyboardInterrupt):
        device.run()
    assert rests == [rest]


def test_a_server_that_forgot_the_device_gets_to_know_it_again(rig):
    device = rig.device()
    device.step()
    rig.server.devices.clear()
    rig.server.tasks = [rig.task()]
    assert device.step().result == "accepted"


def test_without_a_token_a_forgotten_device_stops(rig):
    rig.device().step()
    rig.server.devices.clear()
    with pytest.raises(AuthenticationError):
        rig.device(token=None).step()


def test_later_starts_need_no_token(rig):
    rig.device().step()
    rig.server.tasks = [rig.task()]
    assert rig.device(token=None).step().result == "accepted"
    assert len(rig.server.asked("POST", "/devices")) == 1


def test_a_later_start_says_once_what_the_device_can_do_by_now(rig):
    rig.device().step()
    (enrolled,) = (json.loads(request.body) for request in rig.server.asked("POST", "/devices"))
    del rig.server.requests[:]
    device = rig.device(token=None)
    device.step()
    device.step()
    first, second = (json.loads(request.body) for request in rig.server.asked("POST", "/next"))
    assert first["capabilities"] == enrolled["capabilities"]
    assert "capabilities" not in second
    assert "runtimes" not in first["capabilities"], "nobody knows what the owner's own trainer runs on"


@pytest.mark.parametrize("token", ["", " ", "two\nlines", "zwei Wörter", "é", "\x00", "\ud800"])
def test_a_token_that_no_request_can_carry_is_refused_instead_of_tried_for_ever(rig, token):
    with pytest.raises(InvalidSettingError, match="The token in the device's settings") as refused:
        rig.device(token=token)
    assert "Wörter" not in str(refused.value), "a token does not belong into a log"
    assert not rig.server.requests


@pytest.mark.parametrize("population", ["", "a b", "../x", "é", "a\n", "x" * 129])
def test_a_population_that_can_be_none_is_refused_instead_of_asked_for_for_ever(tmp_path, population):
    with pytest.raises(InvalidSettingError, match="as the population"):
        Device("http://127.0.0.1:1", population, (np.ones((2, 1)), np.ones(2)), tmp_path / "s", token="token")
    assert not (tmp_path / "s").exists()


def test_the_first_start_needs_a_token(rig):
    with pytest.raises(InvalidSettingError, match="EDGEFL_TOKEN"):
        rig.device(token=None).step()
    assert not rig.server.requests


def test_a_wrong_token_stops_the_device(rig):
    with pytest.raises(AuthenticationError):
        rig.device(token="wrong").run(until_idle=True)


def test_an_identity_that_is_taken_stops_the_device(rig):
    device = rig.device()
    rig.server.devices[device.device_id] = "0" * 64
    with pytest.raises(AuthenticationError):
        device.step()


@pytest.mark.parametrize("status", [400, 403, 404, 405, 418])
def test_a_server_that_refuses_to_say_whether_there_is_work_is_asked_again_later_and_later(rig, fault, status, quick):
    rig.server.faults = [fault("POST", "/next", status, times=2)]
    rig.server.tasks = [rig.task()]
    device = rig.device(settings=replace(quick, first_rest_after_trouble=1.0))
    assert device.step() is None
    assert device._rest == 1.0
    assert device.step() is None
    assert device._rest == 2.0
    assert device.step().result == "accepted"


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"weighting": 9}, Reason.UNSUPPORTED_TASK),
        ({"payloads": (Section.of_bytes("roster", b"all"),)}, Reason.UNSUPPORTED_TASK),
        ({"kind": 77}, Reason.UNSUPPORTED_TASK),
        ({"kind": 4}, Reason.UNSUPPORTED_TASK),
        ({"codecs": (SectionCodec("delta", "int4"),)}, Reason.UNSUPPORTED_TASK),
        ({"batch_policy": 9}, Reason.UNSUPPORTED_TASK),
        ({"mu": 0.1}, Reason.UNSUPPORTED_MODEL),
        ({"mu": -0.1}, Reason.UNSUPPORTED_TASK),
        ({"mu": float("nan")}, Reason.UNSUPPORTED_TASK),
        ({"kind": TaskKind.GRADIENT}, Reason.UNSUPPORTED_MODEL),
        ({"correction": 9}, Reason.UNSUPPORTED_TASK),
        ({"correction": Correction.FEDDYN, "continues": ""}, Reason.UNSUPPORTED_TASK),
        ({"correction": Correction.FEDDYN, "mu": 0.1}, Reason.UNSUPPORTED_TASK),
        ({"correction": Correction.FEDDYN, "mu": 0.1, "continues": ""}, Reason.UNSUPPORTED_MODEL),
        ({"correction": Correction.FEDDYN, "mu": 0.1, "continues": "", "clip_norm": 1}, Reason.UNSUPPORTED_TASK),
        ({"correction": Correction.SCAFFOLD, "continues": ""}, Reason.UNSUPPORTED_TASK),
        ({"optimizer_state": 1}, Reason.UNSUPPORTED_TASK),
        ({"batch_size": 5}, Reason.UNSUPPORTED_TASK),
        ({"extra_vectors": (ExtraVector("correction", "0" * 64),)}, Reason.UNSUPPORTED_TASK),
    ],
)
def test_a_task_that_asks_for_more_than_the_device_knows_is_declined(rig, changes, reason):
    rig.server.tasks = [rig.task(**changes)]
    assert rig.device().step().result == "reported"
    outcome = rig.server.decoded("r-1-d")
    assert (outcome.status, outcome.reason) == (OutcomeStatus.DECLINED, reason)
    assert rig.trainer.trained == 0


def test_a_task_of_a_schedule_that_the_device_does_not_know_is_done(rig):
    rig.server.tasks = [rig.task(schedule="of-somebody-else")]
    assert rig.device().step().result == "accepted"


def test_a_task_whose_deadline_passes_while_it_is_done_is_given_up_and_the_server_told(rig):
    rig.trainer.during_step = lambda: time.sleep(0.2)
    rig.server.tasks = [rig.task(epochs=100, deadline_seconds=0.5)]
    assert rig.device().step().result == "reported"
    outcome = rig.server.decoded("r-1-d")
    assert (outcome.status, outcome.reason) == (OutcomeStatus.FAILED, Reason.OUT_OF_TIME)
    assert any("deadline of 0.5 s passed" in line for line in rig.lines)


def test_a_task_within_its_deadline_is_done(rig):
    rig.server.tasks = [rig.task(deadline_seconds=600)]
    assert rig.device().step().result == "accepted"


def test_without_examples_the_task_is_declined(rig):
    rig.data = {"x": np.ones((0, 2), np.float32), "y": np.zeros(0, np.int32)}
    rig.server.tasks = [rig.task()]
    rig.device().step()
    outcome = rig.server.decoded("r-1-d")
    assert (outcome.status, outcome.reason) == (OutcomeStatus.DECLINED, Reason.NO_DATA)


def test_data_that_does_not_fit_fails_the_task_and_tells_the_owner_why(rig):
    rig.data = {"pictures": np.ones((2, 2))}
    rig.server.tasks = [rig.task()]
    rig.device().step()
    outcome = rig.server.decoded("r-1-d")
    assert (outcome.status, outcome.reason) == (OutcomeStatus.FAILED, Reason.DATA_MISMATCH)
    assert "expects an array 'label'; the data holds 'pictures'" in rig.lines[0]


def test_an_unforeseen_error_is_an_outcome_without_any_text(rig):
    rig.server.tasks = [rig.task()]
    rig.trainer.during_step = lambda: 1 / 0
    rig.device().step()
    outcome = rig.server.decoded("r-1-d")
    assert (outcome.status, outcome.reason) == (OutcomeStatus.FAILED, Reason.INTERNAL)
    assert b"division" not in rig.server.outcomes["r-1-d"][0]
    assert "ZeroDivisionError" in rig.lines[0]


def test_without_an_interpreter_the_device_stops_and_the_task_stays_open(rig):
    def missing(path):
        raise MissingDependencyError("No TFLite interpreter is installed.")

    rig.server.tasks = [rig.task()]
    with pytest.raises(MissingDependencyError):
        rig.device(load_trainer=missing).step()
    assert not rig.server.outcomes


def test_weights_that_are_not_finite_are_not_sent(rig):
    rig.server.tasks = [rig.task()]
    rig.trainer.during_step = lambda: rig.trainer.weights.fill(np.nan)
    rig.device().step()
    outcome = rig.server.decoded("r-1-d")
    assert (outcome.status, outcome.reason) == (OutcomeStatus.FAILED, Reason.DIVERGED)


def test_a_full_disk_while_downloading_fails_the_task_with_its_reason(rig, monkeypatch):
    rig.server.tasks = [rig.task()]
    device = rig.device()
    monkeypatch.setattr(Cache, "_only_a_file", lambda self, path: path)  # it would remove what stands for a full disk
    device._worker._weights.part(rig.weights_hash).symlink_to("/dev/full")
    device.step()
    outcome = rig.server.decoded("r-1-d")
    assert (outcome.status, outcome.reason) == (OutcomeStatus.FAILED, Reason.OUT_OF_DISK)
    assert "No space left on device" in rig.lines[0]


def test_an_outcome_that_cannot_be_kept_is_sent_all_the_same(rig, monkeypatch):
    rig.server.tasks = [rig.task()]
    device = rig.device()

    def full(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    device._enrolment.enrol()
    monkeypatch.setattr("edgefl.atomic.os.fsync", full)
    with monkeypatch.context() as patch:
        patch.setattr(device._state, "drop_outcome", lambda: None)
        assert device.step().result == "accepted"
    assert "No space left on device" in rig.lines[0]
    assert not list((rig.folder / "state").glob("*outcome*"))


def test_troubles_in_a_row_make_the_device_wait_longer(rig, quick):
    rig.server.tasks = [rig.task("a", kind=77), rig.task("b", kind=77), rig.task("c")]
    device = rig.device(settings=replace(quick, first_rest_after_trouble=1.0))
    rests = []
    for _ in range(3):
        device.step()
        rests.append(device._rest)
    assert rests == [1.0, 2.0, 0.0]


@pytest.mark.parametrize(
    ("kept", "why"),
    [
        ((GOLDEN / "outcome.eflm").read_bytes(), "The message is of protocol version 1, this edgefl speaks 2."),
        (b"not a message", "Expected a message of type Outcome"),
    ],
    ids=["of an edgefl before an update", "damaged"],
)
def test_an_unsent_outcome_that_cannot_be_read_is_dropped_and_the_owner_told_once(rig, kept, why):
    rig.device().step()
    state = StateFolder(rig.folder / "state")
    state.keep_outcome(kept)
    assert status_of(state)["unsent_task"] is None
    rig.lines.clear()
    rig.server.tasks = [rig.task()]
    device = rig.device()
    assert device.step().result == "accepted"  # the task was asked for again
    assert device.step() is None
    told = [line for line in rig.lines if "is dropped" in line]
    assert len(told) == 1
    assert why in told[0]
    assert not state.has_outcome()
    device.close()
    assert status_of(state)["last_error"]["text"] == told[0]


def test_two_processes_cannot_use_one_state_folder(rig):
    device = rig.device()
    with pytest.raises(StorageError, match="Another process uses"):
        type(device)(rig.server.url, "kitchen", rig.data, rig.folder / "state")


def test_outcomes_depend_on_the_task_alone(rig):
    rig.server.tasks = [rig.task()]
    rig.device().step()
    rig.server.tasks = [rig.task()]
    rig.device(state=rig.folder / "other").step()
    first, second = rig.server.outcomes["r-1-d"]
    assert first == second
    assert isinstance(Outcome.decode(first), Outcome)


def _crash(*arguments: object) -> None:
    raise KeyboardInterrupt


def _stop_after(rests: list[float], seconds: float) -> None:
    rests.append(seconds)
    raise KeyboardInterrupt


def test_what_was_learned_for_one_server_is_neither_shown_to_another_nor_lost(rig, server):
    rig.server.tasks = [rig.task()]
    device = rig.device()
    device._send = lambda *arguments: None  # killed before
    device.step()
    Memories(rig.folder / "state" / "runs").keep("a-run-of-a", "t", RunMemory())
    rig.lines.clear()
    rig.device(server=server.url).run(until_idle=True)
    assert server.asked("POST", "/next")
    assert not any(b"a-run-of-a" in request.body or "r-1-d" in request.path for request in server.requests)
    assert [line for line in rig.lines if "put aside" in line] == [
        f"What this device keeps for {rig.server.url} (kitchen) is put aside until it is started for that again."
    ]
    assert rig.device().step().result == "accepted"
    assert rig.trainer.trained == 1
    assert Memories(rig.folder / "state" / "runs").runs() == ["a-run-of-a"]
