"""A server and devices as real processes on this machine, started and stopped with the `edgefl` command."""

from __future__ import annotations

import json
import os
import secrets
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from edgefl.atomic import write_text
from edgefl.errors import EdgeflError
from edgefl.hashing import sha256
from edgefl_server.operator_client import OperatorClient

__all__ = ["DeviceProcess", "Fleet", "ProcessFailedError", "edgefl", "keep_open", "stop_on_signals"]

Vector = NDArray[np.float32]

_EDGEFL = (sys.executable, "-m", "edgefl.cli.main")
_ROOT = Path(__file__).resolve().parents[1]
_POLL_SECONDS = 0.5
_STOP_SECONDS = 20
"""So long a process may take to end after it has been told to; then it is killed."""


class ProcessFailedError(EdgeflError):
    """A process of the example ended in another way than it should."""


def edgefl(*arguments: str | Path, on_progress: Callable[[str], None] | None = None) -> dict[str, Any]:
    """Runs one `edgefl` command to its end and returns its JSON result.

    Args:
        arguments: as on the command line, without ``--format json``.
        on_progress: told each line that the command writes to standard error.

    Raises:
        ProcessFailedError: it exits with another code than 0; the message has its own.
    """
    command = [*_EDGEFL, *map(str, arguments), "--format", "json"]
    last = ""
    # A file, for a pipe that nobody reads while the errors are read could fill up.
    with tempfile.TemporaryFile("w+") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.PIPE, text=True, env=_environment())
        assert process.stderr is not None
        try:
            for line in filter(None, map(str.strip, process.stderr)):
                last = line
                if on_progress is not None:
                    on_progress(line)
            code = process.wait()
        finally:
            _end(process)
        if code != 0:
            raise _failure(arguments, code, last)
        output.seek(0)
        document: dict[str, Any] = json.load(output)
    return document


def keep_open(state: Path) -> None:
    """Starts the server of a state folder once more, on a free port, and shows what it says until it is stopped."""
    process = subprocess.Popen([*_EDGEFL, "server", "start", "--state", str(state), "--port", "0"], env=_environment())
    try:
        process.wait()
    finally:
        _end(process)


@dataclass
class DeviceProcess:
    """One `edgefl device run` process, or several after each other on the same state folder.

    Attributes:
        name: of its folder.
        folder: holds the data, the device's state, and what its processes print.
        process: the latest one.
        starts: how many there have been.
        peak_rss_mb: the most physical memory seen so far, as the kernel tells it, in MB of 2**20 bytes.
    """

    name: str
    folder: Path
    process: subprocess.Popen[bytes] | None = None
    starts: int = 0
    peak_rss_mb: float = 0.0
    _output: list[IO[bytes]] = field(default_factory=list, repr=False)

    @property
    def running(self) -> bool:
        """Whether it lives."""
        return self.process is not None and self.process.poll() is None

    def start(self, data: Path, invitation: str) -> None:
        """Starts the device, also again after it was killed."""
        self.starts += 1
        output = (self.folder / f"result-{self.starts}.json").open("wb")
        log = (self.folder / "device.log").open("ab")
        self._output += [output, log]
        arguments = ("device", "run", "--data", str(data), "--state", str(self.folder / "state"), "--until-idle")
        # The invitation goes through the environment: a command line can be read by every user of the machine.
        self.process = subprocess.Popen(
            [*_EDGEFL, *arguments, "--format", "json"],
            stdout=output,
            stderr=log,
            env={**_environment(), "EDGEFL_INVITATION": invitation},
        )

    def sample_memory(self) -> None:
        """Asks the kernel for the process's peak memory; nothing happens when it has ended."""
        if not self.running or self.process is None:
            return
        try:
            status = Path(f"/proc/{self.process.pid}/status").read_text(encoding="ascii")
        except OSError:
            return  # it has just ended, or this is no Linux
        for line in status.splitlines():
            if line.startswith("VmHWM:"):
                self.peak_rss_mb = max(self.peak_rss_mb, int(line.split()[1]) / 1024)

    def kill(self) -> None:
        """``kill -9``: the process cannot do anything about it."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def result(self, timeout: float) -> dict[str, Any]:
        """Waits for the device to end by itself and returns the summary that it prints.

        Raises:
            ProcessFailedError: it does not end in time, or ends with an error.
        """
        assert self.process is not None
        try:
            code = self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            raise ProcessFailedError(
                f"The device {self.name} has not ended after {timeout:g} s.", hint=f"See {self.log}."
            ) from None
        if code != 0:
            raise ProcessFailedError(f"The device {self.name} exited with code {code}.", hint=f"See {self.log}.")
        document: dict[str, Any] = json.loads((self.folder / f"result-{self.starts}.json").read_bytes())
        self.peak_rss_mb = max(self.peak_rss_mb, document["peak_rss_mb"])
        return document

    @property
    def log(self) -> Path:
        """What its processes said."""
        return self.folder / "device.log"

    def close(self) -> None:
        """Ends the process, however it goes."""
        if self.process is not None:
            _end(self.process)
        for file in self._output:
            file.close()


class Fleet:
    """A server and its devices; leaving the ``with`` block ends every process, also after a failure.

    Args:
        folder: everything lies under it: the server's state, one folder for each device, and logs.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.state = folder / "server"
        self.devices: list[DeviceProcess] = []
        self._server: subprocess.Popen[bytes] | None = None
        self._server_log: IO[bytes] | None = None

    def __enter__(self) -> Fleet:
        self.folder.mkdir(parents=True, exist_ok=True)
        return self

    def __exit__(self, *_: object) -> None:
        for device in self.devices:
            device.close()
        if self._server is not None:
            _end(self._server)
        if self._server_log is not None:
            self._server_log.close()

    @property
    def server_pid(self) -> int:
        """The process id of the server, which must have been started."""
        assert self._server is not None
        return self._server.pid

    def start_server(self) -> str:
        """Starts the server on a free port of this machine and returns its URL once it answers.

        Raises:
            ProcessFailedError: it does not come up.
        """
        log = self.folder / "server.log"
        self._server_log = log.open("ab")
        self._server = subprocess.Popen(
            [*_EDGEFL, "server", "start", "--state", str(self.state), "--port", "0", "--format", "json"],
            stdout=subprocess.PIPE,
            stderr=self._server_log,
            env=_environment(),
        )
        assert self._server.stdout is not None
        line = self._server.stdout.readline()  # it says where it is as soon as it answers
        if not line:
            raise ProcessFailedError(f"The server exited with code {self._server.wait()}.", hint=f"See {log}.")
        return str(json.loads(line)["url"])

    def operate(self, *arguments: str | Path) -> dict[str, Any]:
        """Runs an `edgefl` command of the operator of this fleet's server."""
        return edgefl(*arguments, "--state", self.state)

    def rounds(self, run_id: str, on_poll: Callable[[], None] | None = None) -> Iterator[tuple[dict[str, Any], Vector]]:
        """Follows a run to its end.

        Args:
            run_id: of this fleet's server.
            on_poll: called twice a second, after each look at the run.

        Yields:
            Each round's entry of `edgefl run status` and the weights after it, as soon as it is done.

        Raises:
            ProcessFailedError: the run fails, or a device ends before the run does.
        """
        client = OperatorClient.find(self.state, None)
        seen = 0
        while True:
            # Looked at first: devices end by themselves, but only after the run has.
            ended = [device for device in self.devices if not device.running]
            status = client.get(f"/v1/runs/{run_id}")
            for device in self.devices:
                device.sample_memory()
            done = [entry for entry in status["history"] if entry["state"] == "done"]
            for entry in done[seen:]:
                content, _ = client.download(f"/v1/runs/{run_id}/weights?round={entry['round']}")
                yield entry, np.frombuffer(content, "<f4")
            seen = len(done)
            if status["state"] == "done":
                return
            if status["state"] != "active":
                raise ProcessFailedError(f"The run {status['state']}: {status['why']}.", hint=f"See {self.folder}.")
            if ended:
                names = ", ".join(device.name for device in ended)
                raise ProcessFailedError(f"Ended before the run did: {names}.", hint=f"See {ended[0].log}.")
            if on_poll is not None:
                on_poll()
            time.sleep(_POLL_SECONDS)

    def add_device(self, name: str) -> DeviceProcess:
        """Makes a folder for a device; it is not started yet.

        The device gets its id here instead of drawing one: the order in which it visits its data derives from the id
        and the run's seed, so that the example gives the same figures each time. Its secret is random as ever.
        """
        device = DeviceProcess(name, self.folder / "devices" / name)
        (device.folder / "state").mkdir(parents=True, exist_ok=True)
        document = {"device_id": sha256(name.encode())[:32], "secret": secrets.token_hex(32)}
        write_text(device.folder / "state" / "identity.json", json.dumps(document), mode=0o600)
        self.devices.append(device)
        return device


@contextmanager
def stop_on_signals() -> Iterator[None]:
    """Turns SIGTERM into an ordinary exit, so that ``with`` blocks end the processes they have started."""

    def leave(number: int, frame: FrameType | None) -> None:
        raise SystemExit(128 + number)

    before = signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _environment() -> dict[str, str]:
    """One numpy thread each, for nine processes share the cores; and modules of the examples can be named."""
    paths = os.pathsep.join(filter(None, [str(_ROOT), os.environ.get("PYTHONPATH", "")]))
    return {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "PYTHONPATH": paths}


def _failure(arguments: tuple[str | Path, ...], code: int, last_line: str) -> ProcessFailedError:
    """What a command said about its failure: JSON, unless it broke down."""
    command = f"`edgefl {' '.join(map(str, arguments))}` exited with code {code}"
    try:
        error = json.loads(last_line)
        return ProcessFailedError(f"{command}: {error['message']}", hint=error["hint"])
    except (ValueError, KeyError, TypeError):
        return ProcessFailedError(f"{command}: {last_line or 'it said nothing'}")


def _end(process: subprocess.Popen[Any]) -> None:
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    for stream in (process.stdout, process.stderr):
        if stream is not None:
            stream.close()
