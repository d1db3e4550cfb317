"""A real server and real devices as processes, for tests that start, kill and restart them."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import numpy as np

from edgefl_server.operator_client import OperatorClient

__all__ = ["Fleet", "Process", "device_id", "free_port", "write_identity"]

EDGEFL = [sys.executable, "-m", "edgefl.cli.main"]
PATIENCE = 60.0
"""Seconds after which a process that should have ended is taken to hang."""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def device_id(index: int) -> str:
    """The id that `write_identity` gives a device."""
    return hashlib.sha256(f"device {index}".encode()).hexdigest()[:32]


def write_identity(state: Path, index: int) -> str:
    """Gives a device the same id and secret in every run, since order and seeds follow from the id."""
    device = device_id(index)
    secret = hashlib.sha256(f"secret {index}".encode()).hexdigest()
    state.mkdir(parents=True, exist_ok=True)
    (state / "identity.json").write_text(json.dumps({"device_id": device, "secret": secret}))
    return device


@dataclass
class Process:
    """A child with its output in files, so that no pipe can fill up."""

    arguments: Sequence[str]
    child: subprocess.Popen[bytes]
    out: IO[bytes]
    err: IO[bytes]

    @classmethod
    def start(cls, *arguments: object, **environment: str) -> Process:
        words = [*EDGEFL, *map(str, arguments)]
        out, err = tempfile.TemporaryFile(), tempfile.TemporaryFile()  # noqa: SIM115 - they live as long as the child
        child = subprocess.Popen(words, stdout=out, stderr=err, env={**os.environ, **environment})
        return cls(words, child, out, err)

    @property
    def running(self) -> bool:
        return self.child.poll() is None

    def kill(self) -> None:
        """kill -9, and waits until the process is gone."""
        self.child.kill()
        self.child.wait()

    def terminate(self) -> None:
        if self.running:
            self.child.send_signal(signal.SIGTERM)
            self.child.wait(PATIENCE)

    def output(self) -> str:
        self.out.seek(0)
        return self.out.read().decode()

    def errors(self) -> str:
        self.err.seek(0)
        return self.err.read().decode()

    def finish(self, patience: float = PATIENCE) -> dict[str, Any]:
        """Waits for an end with code 0; the JSON document that was printed."""
        try:
            code: int | str = self.child.wait(patience)
        except subprocess.TimeoutExpired:
            code = "nothing, and still runs"
        assert code == 0, f"{self.arguments} ended with {code}:\n{self.errors()}"
        document: dict[str, Any] = json.loads(self.output())
        return document


@dataclass
class Fleet:
    """A server's and its devices' processes and folders.

    Attributes:
        folder: holds the state folders: ``server``, and one for each device under its name.
        port: of the server, the same after every restart.
        via: port that devices use instead, of a proxy; 0: none.
        database: URL of the server's PostgreSQL database; empty: it has a file of SQLite's.
    """

    folder: Path
    port: int = field(default_factory=free_port)
    via: int = 0
    database: str = ""
    server: Process | None = None
    devices: list[Process] = field(default_factory=list)
    tokens: dict[str, str] = field(default_factory=dict)

    @property
    def state(self) -> Path:
        return self.folder / "server"

    def start_server(self, *options: object, ready: bool = True) -> None:
        kept = ["--state", self.state, *(["--database", self.database] if self.database else [])]
        self.server = Process.start("server", "start", *kept, "--port", self.port, "--format", "json", *options)
        if ready:
            self.wait_for_server()

    def wait_for_server(self) -> dict[str, Any]:
        """Until the server says that it listens."""
        assert self.server is not None
        server = self.server
        while not server.output().endswith("\n"):
            try:
                code = server.child.wait(0.02)
            except subprocess.TimeoutExpired:
                continue
            raise AssertionError(f"the server ended with {code}:\n{server.errors()}")
        document: dict[str, Any] = json.loads(server.output())
        return document

    @property
    def operator(self) -> OperatorClient:
        return OperatorClient.find(self.state, None)

    def token(self, population: str) -> str:
        if population not in self.tokens:
            self.tokens[population] = self.operator.post("/v1/invitations", {"population": population})["token"]
        return self.tokens[population]

    def create_run(self, model: Path, population: str, **settings: object) -> str:
        """Settings as the query of ``POST /v1/runs`` takes them; `rounds` and `target` must be among them."""
        self.token(population)  # a run needs a population to which somebody was invited
        created = self.operator.upload("/v1/runs", {"population": population, **settings}, model.read_bytes())
        return str(created["run"])

    def status(self, run: str) -> dict[str, Any]:
        document: dict[str, Any] = self.operator.get(f"/v1/runs/{run}")
        return document

    def weights(self, run: str) -> np.ndarray:
        """The run's latest weights, shape ``[layout.size]``."""
        return np.frombuffer(self.operator.download(f"/v1/runs/{run}/weights")[0], "<f4")

    def start_device(self, name: str, population: str, data: object, *options: object) -> Process:
        device = Process.start(
            *("device", "run", "--server", f"http://127.0.0.1:{self.via or self.port}", "--population", population),
            *("--data", data, "--state", self.folder / name, "--until-idle", "--format", "json", *options),
            EDGEFL_TOKEN=self.token(population),
        )
        self.devices.append(device)
        return device

    def query(self, statement: str, *values: object) -> list[Any]:
        """Asks the server's database, read-only."""
        if self.database:
            import psycopg

            with psycopg.connect(self.database) as connection:
                return connection.execute(statement.replace("?", "%s").encode(), values).fetchall()
        path = next(self.state.glob("*.sqlite"))
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as database:
            return database.execute(statement, values).fetchall()

    def close(self) -> None:
        for process in [*self.devices, *([self.server] if self.server else [])]:
            if process.running:
                process.kill()
