"""One server process with an operator, and what it takes of the machine."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any

__all__ = ["Prober", "Server", "Watching"]

_ROOT = Path(__file__).parents[2]
_PATHS = ("", "benchmarks", "converters", "device_runtime", "server", "simulation")


def environment() -> dict[str, str]:
    """In which this checkout's parts are found."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join(str(_ROOT / each) for each in _PATHS)}


class Server:
    """`edgefl server start` on a free port of this machine, in a folder.

    Args:
        state: its state folder.
        options: further ones of the command.
    """

    def __init__(self, state: Path, options: Sequence[str] = ()) -> None:
        self.state = state
        command = [sys.executable, "-m", "edgefl.cli.main", "server", "start", "--state", str(state)]
        command += ["--port", "0", "--format", "json", *options]
        self.log = (state.parent / f"{state.name}.log").open("w")
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=self.log, text=True, env=environment())
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(Path(self.log.name).read_text())
        self.port = int(str(json.loads(line)["url"]).rpartition(":")[2])
        self.admin = str(json.loads((state / "operator.json").read_text())["admin_token"])

    def call(self, method: str, path: str, body: bytes = b"", kind: str = "application/json") -> Any:
        """One call of the operator's."""
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}", body or None, method=method)
        request.add_header("Authorization", f"Bearer {self.admin}")
        request.add_header("Content-Type", kind)
        with urllib.request.urlopen(request, timeout=120) as answer:
            return json.loads(answer.read())

    def invite(self, population: str) -> str:
        """A new token."""
        return str(self.call("POST", "/v1/invitations", json.dumps({"population": population}).encode())["token"])

    async def create_run(self, model: bytes, population: str, target: int) -> str:
        """A run's id, of one round that nothing ends but the target."""
        path = f"/v1/runs?population={population}&rounds=1&target={target}&lease_seconds=100000&seed=1"
        answer = await asyncio.to_thread(self.call, "POST", path, model, "application/octet-stream")
        return str(answer["run"])

    def stop(self) -> None:
        """Asks it to stop.

        Raises:
            SystemExit: it did not end well, or said that something went wrong.
        """
        self.process.terminate()
        try:
            code = self.process.wait(60)
        except subprocess.TimeoutExpired:
            self.process.kill()
            code = self.process.wait()
        self.log.close()
        said = Path(self.log.name).read_text()
        if code or "Traceback" in said:
            raise SystemExit(f"The server ended with {code}:\n{said[-3000:]}")


class Watching:
    """The memory of a server and of the processes that it started, looked at all the time while the block lasts.

    Attributes:
        peak_mb: the most that was resident.
        seconds: what they used of the processor.
    """

    def __init__(self, process: int) -> None:
        self._process, self._over = process, threading.Event()
        self.peak_mb = self.seconds = 0.0

    def __enter__(self) -> Watching:
        self._before = _used(self._process)
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()
        self.seconds = _used(self._process) - self._before

    def _watch(self) -> None:
        while not self._over.wait(0.02):
            self.peak_mb = max(self.peak_mb, sum(map(_resident_mb, _family(self._process))))


class Prober:
    """See `loads.probing`."""

    def __init__(self, server: Server, population: str, invitation: str) -> None:
        command = [sys.executable, "-m", "loads.probing", str(server.port), population, invitation, server.admin]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment()
        )
        assert self._process.stdout is not None
        if self._process.stdout.readline().strip() != "ready":
            raise SystemExit("The probing process did not start.")

    def end(self) -> list[tuple[str, float, float]]:
        """All that it found."""
        out, _ = self._process.communicate("", timeout=120)
        if self._process.returncode:
            raise SystemExit("The probing process failed.")
        return [(kind, at, seconds) for kind, at, seconds in json.loads(out)]


def _family(process: int) -> list[int]:
    """A process, and those that any of its threads started."""
    children: list[int] = []
    for file in Path(f"/proc/{process}/task").glob("*/children"):
        with contextlib.suppress(OSError):  # the thread has ended
            children += map(int, file.read_text().split())
    return [process, *(each for child in children for each in _family(child))]


def _resident_mb(process: int) -> float:
    try:
        return int(Path(f"/proc/{process}/status").read_text().split("VmRSS:")[1].split()[0]) / 1024
    except (OSError, IndexError):  # it has ended
        return 0.0


def _used(process: int) -> float:
    """Seconds of the processor, with those of children that have ended."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")
