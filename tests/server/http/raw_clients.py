"""Clients that do what a well-behaved one does not, many at once, without a thread each."""

from __future__ import annotations

import asyncio
import contextlib
import json
import resource
import socket
import time
from dataclasses import dataclass, field
from pathlib import Path

from edgefl.wire.messages import CONTENT_TYPE
from fake_device import Identity

__all__ = ["Answer", "Client", "raise_own_file_limit", "resident_mb"]


def raise_own_file_limit() -> int:
    """So that this process can hold both ends of many connections."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


def resident_mb(pid: int) -> float:
    """The memory that a process has now."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0]) / 1024


@dataclass(frozen=True)
class Answer:
    """What a server said.

    Attributes:
        status: of HTTP.
        headers: with names in lower case.
        body: all of it.
        seconds: from the request to the end of the answer.
    """

    status: int
    headers: dict[str, str]
    body: bytes
    seconds: float = 0.0

    @property
    def code(self) -> str:
        """Of an error."""
        return str(json.loads(self.body)["error"]["code"])


@dataclass
class Client:
    """One connection."""

    port: int
    host: str = "127.0.0.1"
    reader: asyncio.StreamReader = field(init=False)
    writer: asyncio.StreamWriter = field(init=False)

    async def open(self) -> Client:
        """Connects, again and again while the server's queue is full."""
        self.reader, self.writer = await asyncio.open_connection(self.host, self.port)
        return self

    def close(self) -> None:
        """As a power cut would."""
        with contextlib.suppress(RuntimeError):
            self.writer.transport.abort()

    async def ask(
        self, method: str, path: str, device: Identity | None = None, body: bytes = b"", **headers: str
    ) -> Answer:
        """One request and its answer."""
        started = time.perf_counter()
        self.send_head(method, path, device, len(body), **headers)
        self.writer.write(body)
        await self.writer.drain()
        return await self.answer(started)

    def send_head(self, method: str, path: str, device: Identity | None, length: int, **headers: str) -> None:
        """Everything of a request but its body."""
        kind = CONTENT_TYPE if method == "PUT" else "application/json"
        named = {
            "Host": "test",
            "Content-Type": kind,
            "Content-Length": str(length),
            **(device.authorization if device else {}),
            **{name.replace("_", "-"): value for name, value in headers.items()},
        }
        head = f"{method} {path} HTTP/1.1\r\n" + "".join(f"{name}: {value}\r\n" for name, value in named.items())
        self.writer.write(head.encode() + b"\r\n")

    async def answer(self, started: float = 0.0) -> Answer:
        """The next answer."""
        head = await self.reader.readuntil(b"\r\n\r\n")
        status, *lines = head.decode().split("\r\n")
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines if line)}
        body = await self.reader.readexactly(int(headers.get("content-length", "0")))
        return Answer(int(status.split()[1]), headers, body, time.perf_counter() - started)

    async def ended(self) -> bytes:
        """What the server still says until it closes."""
        try:
            return await self.reader.read()
        except ConnectionError:
            return b""

    def local_socket(self) -> socket.socket:
        """For its options."""
        return self.writer.get_extra_info("socket")
