"""A real server process on a free port of this machine, for tests that kill it."""

from __future__ import annotations

import io
import json
import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

from edgefl.cli.main import main

__all__ = ["Done", "ServerProcess", "edgefl", "free_port"]


def free_port() -> int:
    """A port that nobody uses now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass(frozen=True)
class Done:
    """What a command did."""

    returncode: int
    stdout: str
    stderr: str


def edgefl(*arguments: object, **environment: str) -> Done:
    """Runs the command line to its end, in this process: a new one would import everything again."""
    stdout, stderr, code = io.StringIO(), io.StringIO(), 0
    with mock.patch.dict(os.environ, environment), redirect_stdout(stdout), redirect_stderr(stderr):
        try:
            main([str(argument) for argument in arguments])
        except SystemExit as ended:
            code = int(ended.code or 0)
    return Done(code, stdout.getvalue(), stderr.getvalue())


@dataclass
class ServerProcess:
    """`edgefl server start` with a state folder, on the same port after each restart.

    Attributes:
        state: the folder.
        port: chosen once.
        options: further options of the command.
    """

    state: Path
    port: int
    options: tuple[str, ...] = ()
    process: subprocess.Popen[str] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> dict[str, object]:
        """Starts and returns what the server says once it listens."""
        command = [sys.executable, "-m", "edgefl.cli.main", "server", "start", "--state", str(self.state)]
        command += ["--port", str(self.port), "--format", "json", *self.options]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, self.process.communicate()[1]
        document: dict[str, object] = json.loads(line)
        return document

    def kill(self) -> None:
        """As a power cut would, as far as a process can tell."""
        assert self.process is not None
        self.process.send_signal(signal.SIGKILL)
        self.process.communicate()

    def stop(self) -> tuple[int, str]:
        """Asks it to stop; its exit code and what it wrote to standard error."""
        if self.process is None:
            return 0, ""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        errors = self.process.communicate(timeout=30)[1]
        return self.process.returncode, errors

    def call(self, *arguments: object) -> dict[str, object]:
        """A verb of the command line against this server, as JSON."""
        done = edgefl(*arguments, "--state", self.state, "--format", "json")
        assert done.returncode == 0, done.stderr
        document: dict[str, object] = json.loads(done.stdout)
        return document

    def wait_for(self, seconds: float) -> None:
        """Lets it run for a while."""
        time.sleep(seconds)
