"""What a device does when it is told to stop, what it tells its owner, and when it does not take part."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from dataclasses import replace

import numpy as np
import pytest

from edgefl.errors import DataError, DataNotReadyError, InvalidSettingError
from edgefl.wire.messages import OutcomeStatus, Reason, TaskKind
from edgefl_device_runtime.agent import Settings
from edgefl_device_runtime.agent.state import StateFolder
from edgefl_device_runtime.agent.status import status_of, status_text

TOKEN = "token-of-the-kitchen"


class Stopped(BaseException):
    """As the command line raises on SIGTERM."""


def stop():
    raise Stopped


def test_a_device_that_is_closed_while_training_gives_its_place_back_at_once(rig):
    rig.server.tasks = [rig.task()]
    rig.trainer.during_step = stop
    device = rig.device()
    with pytest.raises(Stopped):
        device.step()
    device.close()
    outcome = rig.server.decoded("r-1-d")
    assert (outcome.status, outcome.reason, outcome.sections) == (OutcomeStatus.DECLINED, Reason.NOT_READY, ())
    assert len(rig.server.asked("PUT", "")) == 1
    assert rig.device().step() is None  # nothing of it is left to be sent


def test_a_finished_outcome_is_kept_and_not_given_back(rig):
    rig.server.tasks = [rig.task()]
    device = rig.device()
    device._send = lambda *arguments: stop()
    with pytest.raises(Stopped):
        device.step()
    device.close()
    assert not rig.server.outcomes
    rig.device().step()
    assert rig.server.decoded("r-1-d").status == OutcomeStatus.DONE


def test_a_server_that_is_away_does_not_hold_up_the_end(rig, fault, quick):
    rig.server.tasks = [rig.task()]
    rig.trainer.during_step = stop
    device = rig.device(settings=replace(quick, stop_timeout=0.2))
    ended = threading.Event()
    rig.server.faults = [fault("PUT", "/outcome", lambda handler: ended.wait(30), times=5)]
    with pytest.raises(Stopped):
        device.step()
    before = time.monotonic()
    device.close()
    took = time.monotonic() - before
    ended.set()
    assert took < 10  # of the 30 that an answer would take
    assert len(rig.server.asked("PUT", "")) == 1


def test_without_a_task_nothing_is_sent_at_the_end(rig):
    device = rig.device()
    device.step()
    count = len(rig.server.requests)
    device.close()
    assert len(rig.server.requests) == count


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_sigterm_gives_the_task_in_hand_back(rig, tmp_path, number):
    """A process: its data never comes to an end, so that it holds its task when the signal comes."""
    (tmp_path / "slow_data.py").write_text(
        "import pathlib, time\n"
        "def read():\n"
        f"    pathlib.Path({str(tmp_path / 'reading')!r}).touch()\n"
        "    time.sleep(120)\n"
    )
    server = rig.server
    model = (tmp_path / "any").as_posix()
    program = (
        "import sys\n"
        "from edgefl_device_runtime.agent import cli, device\n"
        f"sys.path.insert(0, {str(tmp_path)!r})\n"
        f"sys.path[:0] = {sys.path!r}\n"
        "import importlib.util\n"
        f"spec = importlib.util.spec_from_file_location('rig', {str(__file__.rsplit('/', 1)[0] + '/conftest.py')!r})\n"
        "rig = importlib.util.module_from_spec(spec); sys.modules['rig'] = rig; spec.loader.exec_module(rig)\n"
        "device._load_with = lambda *arguments: lambda path: rig.FakeTrainer()\n"
        "from edgefl.cli.main import main\n"
        f"main(['device', 'run', '--server', {server.url!r}, '--population', 'kitchen', '--token', {TOKEN!r},"
        f" '--data', 'slow_data:read', '--state', {model!r}])\n"
    )
    server.tasks = [rig.task()]
    process = subprocess.Popen(
        [sys.executable, "-c", program], cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        for _ in range(600):
            if (tmp_path / "reading").exists() or process.poll() is not None:
                break
            time.sleep(0.1)
        process.send_signal(number)
        _, errors = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 0, errors
    assert "Stopped." in errors
    assert server.decoded("r-1-d").reason == Reason.NOT_READY


@pytest.mark.parametrize(
    ("error", "status", "reason"),
    [
        (DataNotReadyError("being replaced"), OutcomeStatus.DECLINED, Reason.NOT_READY),
        (FileNotFoundError(2, "No such file or directory", "x.npy"), OutcomeStatus.DECLINED, Reason.NOT_READY),
        (DataError("no numbers"), OutcomeStatus.FAILED, Reason.DATA_MISMATCH),
    ],
)
def test_data_that_is_missing_for_a_moment_costs_nobody_a_round(rig, error, status, reason):
    def data():
        raise error

    rig.server.tasks = [rig.task()]
    rig.device(data=data).step()
    outcome = rig.server.decoded("r-1-d")
    assert (outcome.status, outcome.reason) == (status, reason)


def rows(count, weights=None):
    data = {"x": np.ones((count, 2), np.float32), "y": np.zeros(count, np.int32)}
    return data if weights is None else {**data, "sample_weight": np.asarray(weights, np.float32)}


@pytest.mark.parametrize(
    ("data", "minimum", "task", "takes_part"),
    [
        (rows(1), 2, {}, False),
        (rows(2), 2, {}, True),
        (rows(1), 1, {}, True),
        (rows(9), 10, {}, False),
        (rows(5, [0, 0, 0, 0, 1]), 2, {}, False),
        (rows(5, [0, 0, 0, 1, 1]), 2, {}, True),
        (rows(5), 2, {"batch_size": 1, "max_steps": 1}, False),
        (rows(5), 2, {"batch_size": 1, "max_steps": 2}, True),
        (rows(5), 2, {"batch_size": 1, "max_seconds": 0.1}, False),
        (rows(5), 2, {"batch_size": 2, "max_seconds": 0.1}, True),
        (rows(5), 5, {"max_steps": 1}, False),
        (rows(10, [0] * 8 + [1] * 2), 1, {"batch_size": 2, "max_steps": 1}, False),
        (rows(10, [0] * 8 + [1] * 2), 2, {"batch_size": 3, "max_steps": 3}, False),
        (rows(10, [0] * 8 + [1] * 2), 2, {"batch_size": 3, "max_steps": 4}, True),
        (rows(10, [0] * 2 + [1] * 8), 2, {"batch_size": 4, "max_seconds": 0.1}, True),
        (rows(10, [0] * 3 + [1] * 7), 2, {"batch_size": 4, "max_seconds": 0.1}, False),
        (rows(1), 2, {"kind": TaskKind.EVALUATE}, False),
    ],
)
def test_with_fewer_examples_than_the_owner_wants_the_device_does_not_take_part(rig, data, minimum, task, takes_part):
    rig.server.tasks = [rig.task(**task)]
    rig.device(data=data, minimum_examples=minimum).step()
    outcome = rig.server.decoded("r-1-d")
    if takes_part:
        assert outcome.status == OutcomeStatus.DONE
    else:
        assert (outcome.status, outcome.reason) == (OutcomeStatus.DECLINED, Reason.NOT_READY)
        assert f"takes part with at least {minimum} (its minimum of examples)" in rig.lines[0]
        assert rig.trainer.trained == 0


def test_by_default_a_single_example_stays_at_home(rig):
    rig.server.tasks = [rig.task()]
    rig.device(data=rows(1)).step()
    assert rig.server.decoded("r-1-d").reason == Reason.NOT_READY


def test_a_minimum_below_one_is_refused(rig):
    with pytest.raises(InvalidSettingError, match="at least 1"):
        rig.device(minimum_examples=0)


def status(rig):
    return status_of(StateFolder(rig.folder / "state"))


def wait_for(condition):
    for _ in range(500):
        if condition():
            return True
        time.sleep(0.02)
    return False


def test_the_status_tells_task_and_step_while_a_device_trains(rig, quick):
    rig.server.tasks = [rig.task(epochs=2)]
    device = rig.device(settings=replace(quick, status_pause=0.01))
    seen = {}

    def look():
        if not seen and wait_for(lambda: (status(rig)["task"] or {}).get("step") == 1):
            seen.update(status(rig))

    steps = []
    rig.trainer.during_step = lambda: steps.append(1) or (look() if len(steps) == 2 else None)
    device.step()
    assert seen["running"]
    assert seen["doing"] == "training"
    named = {"task_id": "r-1-d", "run": "r", "round": 1, "kind": "train", "version": 0}
    assert seen["task"] == {**named, "step": 1, "steps": 4, "loss": 3.0}
    assert seen["last_contact"] is not None
    assert "task: round 1 of r, step 1 of about 4, loss 3.000" in status_text(seen)
    device.close()
    after = status(rig)
    assert (after["running"], after["task"], after["doing"]) == (False, None, None)
    assert [(entry["run"], entry["result"]) for entry in after["history"]] == [("r", "accepted")]


def test_the_status_tells_why_the_server_is_not_reached_and_when_it_is_tried_again(rig, fault, quick):
    rig.server.faults = [fault("POST", "/next", 503, times=10**6)]
    device = rig.device(settings=replace(quick, status_pause=0.01, first_retry=0.05, longest_retry=0.05))
    thread = threading.Thread(target=device.step)
    thread.start()
    try:
        assert wait_for(lambda: status(rig)["trouble"])
        found = status(rig)
    finally:
        rig.server.faults.clear()
        thread.join()
    assert "asks for patience" in found["trouble"]
    assert found["doing"] == "asking for work"
    assert "running: yes, asking for work, server not reached (as of" in status_text(found)
    assert found["next_try"] is not None
    assert "next try: " in status_text(found)


def test_the_history_is_bounded_and_survives_a_start(rig, quick):
    settings = replace(quick, history_kept=3)
    for names in (["a", "b"], ["c", "d"]):
        rig.server.tasks = [rig.task(name) for name in names]
        rig.device(settings=settings).run(until_idle=True)
    rig.device(settings=settings).close()
    rig.devices.clear()
    assert [entry["task_id"] for entry in status(rig)["history"]] == ["b", "c", "d"]


def test_the_last_error_is_kept_for_the_owner(rig):
    rig.server.tasks = [rig.task(kind=77)]
    device = rig.device()
    device.step()
    device.close()
    found = status(rig)
    assert "declined (unsupported_task)" in found["last_error"]["text"]
    assert "last error: " in status_text(found)


_ENTRY = {"at": 1, "task_id": "t", "run": "r", "round": 1, "status": "done", "result": "accepted"}
_ENTRY |= {"loss": 10**400, "examples": 3, "steps": 2, "seconds": 1.0}
_NO_NUMBERS = json.dumps({"history": [_ENTRY], "task": {"step": 1}}).encode()


@pytest.mark.parametrize(
    "content", [b"", b"[]", b"{", b"[" * 100000, b'{"history": 3, "task": 5}', b"\xff\xfe", _NO_NUMBERS]
)
def test_a_damaged_status_file_is_no_trouble(rig, content):
    rig.device().step()
    (rig.folder / "state" / "status.json").write_bytes(content)
    assert status(rig)["device_id"]
    assert status_text(status(rig))
    rig.server.tasks = [rig.task()]
    assert rig.device().step().result == "accepted"


def test_a_status_that_cannot_be_written_is_no_trouble(rig):
    (rig.folder / "state" / "status.json").mkdir(parents=True)
    rig.server.tasks = [rig.task()]
    device = rig.device()
    assert device.step().result == "accepted"
    device.close()


def test_the_status_is_written_seldom(rig, monkeypatch):
    written = []
    monkeypatch.setattr(
        "edgefl_device_runtime.agent.journal.write_text", lambda *arguments, **options: written.append(arguments)
    )
    rig.server.tasks = [rig.task(f"t{number}", epochs=30) for number in range(10)]
    device = rig.device()
    device.run(until_idle=True)
    device.close()
    assert len(written) <= Settings().status_burst + 2  # perhaps one when a pause is over, and at the end


def test_a_task_that_is_over_is_in_the_status_at_once(rig, quick):
    rig.server.tasks = [rig.task()]
    rig.device(settings=replace(quick, status_pause=1e6)).step()
    # Not closed: as after a kill.
    assert wait_for(lambda: [entry["task_id"] for entry in status(rig)["history"]] == ["r-1-d"])


def test_an_error_is_in_the_status_at_once_though_a_step_was_just_written(rig, quick):
    device = rig.device(settings=replace(quick, status_pause=1e6))
    device._journal.step(1, 2, 0.5)
    assert wait_for(lambda: status(rig)["as_of"])
    device._journal.error("the disk is full")
    assert wait_for(lambda: (status(rig)["last_error"] or {}).get("text") == "the disk is full")


def test_a_long_training_tells_how_far_it_is(rig, quick):
    rig.server.tasks = [rig.task(epochs=2)]
    rig.device(settings=replace(quick, progress_pause=0.0)).step()
    assert rig.lines[:2] == [
        "Round 1 of r: step 1 of about 4 (25 %), loss 3.000",
        "Round 1 of r: step 2 of about 4 (50 %), loss 3.000",
    ]


def test_a_short_training_tells_its_result_only(rig):
    rig.server.tasks = [rig.task(epochs=50)]
    rig.device().step()
    assert len(rig.lines) == 1


def test_the_first_line_says_who_where_and_for_what(rig):
    device = rig.device()
    device.run(until_idle=True)
    assert rig.lines[0].startswith(f"Device {device.device_id[:8]} (edgefl ")
    assert rig.lines[0].endswith(f" of kitchen at {rig.server.url}: asking for work.")


def test_it_is_said_before_anything_else_when_the_server_is_away(rig, quick):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
    device = rig.device(server=url)
    device._connection._sleep = lambda seconds: stop()
    with pytest.raises(Stopped):
        device.run()
    assert rig.lines[0].startswith("Device ")
    assert "cannot be reached (Connection refused). Trying again until it answers." in rig.lines[1]


def test_status_of_a_running_device_does_not_disturb_it(rig, tmp_path):
    device = rig.device()
    device.step()
    command = [sys.executable, "-m", "edgefl", "device", "status", "--state", str(rig.folder / "state")]
    done = subprocess.run([*command, "--format", "json"], capture_output=True, text=True, env=dict(os.environ))
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["running"]
    assert device.step() is None
    missing = tmp_path / "nowhere"
    done = subprocess.run([*command[:-1], str(missing)], capture_output=True, text=True)
    assert done.returncode == 4
    assert not missing.exists()
