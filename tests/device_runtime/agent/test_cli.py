"""The command line of a device, as a process and in one."""

from __future__ import annotations

import base64
import json
import os
import signal
import subprocess
import sys

import numpy as np
import pytest

from edgefl.cli.main import main
from edgefl.errors import AuthenticationError, MissingDependencyError
from edgefl.version import __version__
from edgefl.wire.messages import Reason
from edgefl_device_runtime.agent import device
from edgefl_device_runtime.training import interpreter

TOKEN = "token-of-the-kitchen"


@pytest.fixture
def data(tmp_path):
    np.savez(tmp_path / "data.npz", x=np.ones((3, 2), np.float32), y=np.zeros(3))
    return tmp_path / "data.npz"


@pytest.fixture
def start(server, tmp_path, data):
    started = []

    def start(*arguments, **environment):
        process = subprocess.Popen(
            [sys.executable, "-m", "edgefl.cli.main", "device", *map(str, arguments)],
            env={**os.environ, **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        if process.poll() is None:
            process.kill()
        process.communicate()


def introduction(device_id, server):
    return f"Device {device_id[:8]} (edgefl {__version__}) of kitchen at {server.url}: asking for work."


def finish(process):
    out, err = process.communicate(timeout=60)
    return process.returncode, out, err


def test_a_device_with_nothing_to_do_ends_with_a_summary(server, start, tmp_path, data):
    arguments = ["--server", server.url, "--population", "kitchen", "--data", data, "--state", tmp_path / "s"]
    code, out, err = finish(start("run", *arguments, "--until-idle", "--format", "json", EDGEFL_TOKEN=TOKEN))
    summary = json.loads(out)
    assert (code, err.splitlines()) == (0, [f"{introduction(summary['device_id'], server)}"])
    assert summary["tasks_done"] == 0
    assert summary["bytes_up"] == sum(len(request.body) for request in server.requests)
    assert 0 < summary["peak_rss_mb"] < 80
    assert TOKEN not in (tmp_path / "s" / "enrolment.json").read_text()

    code, out, err = finish(start("status", "--state", tmp_path / "s", "--format", "json"))
    assert code == 0
    status = json.loads(out)
    assert {name: status[name] for name in ("device_id", "server", "population", "running", "unsent_task")} == {
        "device_id": summary["device_id"],
        "server": server.url,
        "population": "kitchen",
        "running": False,
        "unsent_task": None,
    }
    assert (status["cache_bytes"], status["history"], status["last_error"]) == (0, [], None)
    assert status["last_contact"] is not None


def test_an_invitation_is_enough_and_later_not_even_that(server, start, tmp_path, data):
    invitation = {"server": server.url, "population": "kitchen", "token": TOKEN, "certificate_pin": None}
    text = base64.urlsafe_b64encode(json.dumps(invitation).encode()).decode().rstrip("=")
    common = ["--data", data, "--state", tmp_path / "s", "--until-idle"]
    code, out, err = finish(start("run", "--invitation", text, *common))
    assert (code, len(err.splitlines())) == (0, 1)
    assert out.startswith("0 tasks done")
    assert finish(start("run", *common))[0] == 0
    assert len(server.asked("POST", "/devices")) == 1


def test_the_pin_of_one_server_is_not_used_for_another(server, tmp_path, data, monkeypatch, capsys):
    monkeypatch.setattr(signal, "signal", lambda number, handler: None)
    (tmp_path / "s").mkdir()
    remembered = {"server": "https://elsewhere", "population": "kitchen", "certificate_pin": "0" * 64}
    (tmp_path / "s" / "enrolment.json").write_text(json.dumps(remembered))
    arguments = ["--server", server.url, "--token", TOKEN, "--data", str(data), "--state", str(tmp_path / "s")]
    with pytest.raises(SystemExit) as ended:
        main(["device", "run", *arguments, "--until-idle"])
    assert ended.value.code == 0
    assert json.loads((tmp_path / "s" / "enrolment.json").read_text())["certificate_pin"] is None


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_a_waiting_device_with_a_summary(server, start, tmp_path, data, number):
    server.retry_after = "3000"
    arguments = ["--server", server.url, "--population", "kitchen", "--data", data, "--state", tmp_path / "s"]
    process = start("run", *arguments, "--format", "json", EDGEFL_TOKEN=TOKEN)
    assert server.polled.wait(60)
    process.send_signal(number)
    code, out, err = finish(process)
    summary = json.loads(out)
    assert (code, err) == (0, f"{introduction(summary['device_id'], server)}\nStopped.\n")
    assert summary["tasks_done"] == 0


@pytest.mark.parametrize(
    ("changes", "code", "message"),
    [
        ({"--data": "nothing.npz"}, 22, "no such file"),
        ({"--server": "host"}, 4, "Expected a server URL"),
        ({"--token": "wrong"}, 41, "does not accept this device"),
        ({"--token": ""}, 4, "neither an invitation nor a token"),
        ({"--population": ""}, 4, "no population"),
        ({"--invitation": "abc"}, 4, "Copy the whole line"),
        ({"--certificate-pin": "abc"}, 4, "certificate pin"),
        ({"--state": "/proc/nowhere"}, 52, "Could not make the folder"),
        ({"--threads": "0"}, 2, "threads"),
        ({"--minimum-examples": "0"}, 2, "minimum-examples"),
        ({"--runtime": "bogus"}, 4, "Unknown runtime 'bogus'"),
    ],
)
def test_bad_input_is_one_clear_line_and_a_documented_code(
    server, tmp_path, data, monkeypatch, capsys, changes, code, message
):
    monkeypatch.setattr(signal, "signal", lambda number, handler: None)  # this process keeps its own
    options = {
        "--server": server.url,
        "--population": "kitchen",
        "--token": TOKEN,
        "--data": str(data),
        "--state": str(tmp_path / "s"),
        **changes,
    }
    pairs = [part for option in options.items() for part in option]
    with pytest.raises(SystemExit) as ended:
        main(["device", "run", *pairs, "--until-idle"])
    out, err = capsys.readouterr()
    assert ended.value.code == code
    assert message in err
    assert out == ""
    if code != 2:  # a wrong option's message is the option parser's
        assert len(err.splitlines()) == 1


def run_here(server, tmp_path, data, monkeypatch, *options):
    """Runs a device in this process, which keeps its own signal handlers; the exit code."""
    monkeypatch.setattr(signal, "signal", lambda number, handler: None)
    where = ["--server", server.url, "--population", "kitchen", "--token", TOKEN, "--state", str(tmp_path / "s")]
    with pytest.raises(SystemExit) as ended:
        main(["device", "run", *where, "--data", str(data), "--until-idle", *options])
    return ended.value.code


@pytest.mark.parametrize(("options", "code"), [([], 3), (["--runtime", "bogus"], 4)])
def test_without_an_interpreter_a_device_does_not_even_enrol(server, tmp_path, data, monkeypatch, options, code):
    monkeypatch.setattr(interpreter, "installed_runtimes", lambda: ())
    assert run_here(server, tmp_path, data, monkeypatch, *options) == code
    assert server.requests == []


@pytest.mark.parametrize(("error", "code"), [(MissingDependencyError("none"), 3), (AuthenticationError("no"), 41)])
def test_a_device_that_ends_with_an_error_gives_its_place_back(rig, tmp_path, data, monkeypatch, error, code):
    def load(path):
        raise error

    monkeypatch.setattr(device, "_load_with", lambda *arguments: load)
    rig.server.tasks = [rig.task()]
    assert run_here(rig.server, tmp_path, data, monkeypatch) == code
    assert rig.server.decoded("r-1-d").reason == Reason.NOT_READY


def test_a_crash_of_a_device_gives_its_place_back(rig, tmp_path, data, monkeypatch):
    def crash(*arguments):
        raise ZeroDivisionError

    monkeypatch.setattr(device.Worker, "do", crash)
    rig.server.tasks = [rig.task()]
    with pytest.raises(ZeroDivisionError):
        run_here(rig.server, tmp_path, data, monkeypatch)
    assert rig.server.decoded("r-1-d").reason == Reason.NOT_READY


@pytest.mark.parametrize("closed", ["stdout", "stderr"])
@pytest.mark.parametrize("kind", ["full", "no reader", "closed"])
def test_a_log_that_cannot_be_written_ends_no_device(server, tmp_path, data, closed, kind):
    command = [sys.executable, "-m", "edgefl.cli.main", "device", "run", "--server", server.url]
    command += ["--population", "kitchen", "--data", str(data), "--state", str(tmp_path / "s"), "--until-idle"]
    reading, writing = os.pipe()
    os.close(reading)
    with open("/dev/full", "wb") as full:  # noqa: PTH123 - a device, not a file
        outputs = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        outputs[closed] = {"full": full, "no reader": writing, "closed": subprocess.PIPE}[kind]
        if kind == "closed":
            command = ["sh", "-c", f'exec "$@" {1 if closed == "stdout" else 2}>&-', "sh", *command]
        done = subprocess.run(
            command, **outputs, env={**os.environ, "EDGEFL_TOKEN": TOKEN}, text=True, timeout=60, check=False
        )
    os.close(writing)
    assert done.returncode == 0, done.stderr
    if closed == "stderr":
        assert done.stdout.startswith("0 tasks done")
    else:
        assert len(done.stderr.splitlines()) == 1


def test_the_state_of_no_device_is_refused(start, tmp_path):
    code, _, err = finish(start("status", "--state", tmp_path))
    assert code == 4
    assert "without an identity" in err
    assert list(tmp_path.glob("*.json")) == []


@pytest.mark.parametrize("threads", ["0", "-1", "two", "1.5", ""])
def test_a_wrong_number_of_threads_is_refused_before_any_work(tmp_path, data, threads, capsys):
    arguments = ["--server", "http://127.0.0.1:1", "--population", "k", "--data", str(data), "--state", str(tmp_path)]
    with pytest.raises(SystemExit) as ended:
        main(["device", "run", *arguments, f"--threads={threads}"])
    assert ended.value.code == 2
    assert "--threads" in capsys.readouterr().err
    assert not (tmp_path / "identity.json").exists()


def test_threads_auto_is_taken(server, start, tmp_path, data):
    arguments = ["--server", server.url, "--population", "kitchen", "--data", data, "--state", tmp_path / "s"]
    code, _, err = finish(start("run", *arguments, "--until-idle", "--threads", "auto", EDGEFL_TOKEN=TOKEN))
    assert (code, len(err.splitlines())) == (0, 1)
