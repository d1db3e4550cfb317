from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from examples.fleet import Fleet, ProcessFailedError, edgefl

ROOT = Path(__file__).resolve().parents[2]


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_leaving_the_block_ends_the_server_also_after_a_failure(tmp_path: Path) -> None:
    def fail_inside() -> None:
        with Fleet(tmp_path / "fleet") as fleet:
            assert fleet.start_server().startswith("http://127.0.0.1:")
            pids.append(fleet.server_pid)
            assert is_alive(pids[0])
            raise KeyError("something else went wrong")

    pids: list[int] = []
    with pytest.raises(KeyError):
        fail_inside()
    assert not is_alive(pids[0])


def test_a_server_that_cannot_start_points_to_its_log(tmp_path: Path) -> None:
    (tmp_path / "fleet").mkdir()
    (tmp_path / "fleet" / "server").write_text("a file where the state folder should be")
    with Fleet(tmp_path / "fleet") as fleet, pytest.raises(ProcessFailedError, match=r"server\.log"):
        fleet.start_server()


def test_a_command_that_fails_is_an_error_with_its_own_words(tmp_path: Path) -> None:
    with pytest.raises(ProcessFailedError, match=r"`edgefl inspect .*nothing\.tflite` exited with code") as raised:
        edgefl("inspect", tmp_path / "nothing.tflite")
    assert "No such file" in raised.value.message
    assert raised.value.hint == "Check the path and try again."


def test_a_device_that_ends_with_an_error_points_to_its_log(tmp_path: Path) -> None:
    with Fleet(tmp_path / "fleet") as fleet:
        device = fleet.add_device("broken")
        device.start(tmp_path / "no-data.npz", "no invitation")
        with pytest.raises(ProcessFailedError, match=r"broken exited with code \d+.*device\.log"):
            device.result(60)
        assert device.log.read_text()


def test_sigterm_takes_the_server_down_too(tmp_path: Path) -> None:
    script = (
        "import sys, time; from pathlib import Path; from examples.fleet import Fleet, stop_on_signals\n"
        "with stop_on_signals(), Fleet(Path(sys.argv[1])) as fleet:\n"
        "    fleet.start_server(); print(fleet.server_pid, flush=True); time.sleep(600)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", script, tmp_path], stdout=subprocess.PIPE, text=True, cwd=ROOT)
    try:
        assert process.stdout is not None
        server = int(process.stdout.readline())
        assert is_alive(server)
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 128 + signal.SIGTERM
        assert not is_alive(server)
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
