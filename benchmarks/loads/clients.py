"""Devices as connections of this process: they speak the protocol, and cost as little as may be beside the server."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import resource
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from edgefl.wire.calls import DIGEST, INSTANCE, LENGTH
from edgefl.wire.messages import CONTENT_TYPE

__all__ = ["Answer", "Connection", "Device", "connect", "raise_own_file_limit"]

_PIECE_BYTES = 64 << 10
_ATTEMPTS = 50
_CALLS = 3


def raise_own_file_limit() -> int:
    """So that this process can hold one end of many connections; the limit."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


@dataclass(frozen=True)
class Answer:
    """What a server said: the status of HTTP, the head as it came, the body, and when all of it had come."""

    status: int
    head: bytes
    body: bytes
    at: float

    def header(self, name: str) -> str:
        """A header's value; empty where there is none."""
        for line in self.head.decode().split("\r\n")[1:]:
            found, _, value = line.partition(":")
            if found.lower() == name.lower():
                return value.strip()
        return ""


class Connection(asyncio.Protocol):
    """One connection that is kept: a request at a time, and its answer."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._received = bytearray()
        self._answer: asyncio.Future[Answer] | None = None
        self._may_write = asyncio.Event()
        self._may_write.set()
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See `asyncio.Protocol`."""
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def connection_lost(self, exc: Exception | None) -> None:
        """See `asyncio.Protocol`."""
        self._may_write.set()
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(exc or ConnectionResetError("the server ended the connection"))

    def pause_writing(self) -> None:
        """See `asyncio.Protocol`."""
        self._may_write.clear()

    def resume_writing(self) -> None:
        """See `asyncio.Protocol`."""
        self._may_write.set()

    def data_received(self, data: bytes) -> None:
        """See `asyncio.Protocol`."""
        self._received += data
        end = self._received.find(b"\r\n\r\n")
        if end < 0 or self._answer is None:
            return
        head = bytes(self._received[:end])
        begin = head.lower().find(b"content-length:")
        length = int(head[begin + 15 :].split(b"\r\n", 1)[0]) if begin >= 0 else 0
        if len(self._received) < end + 4 + length:
            return
        body = bytes(self._received[end + 4 : end + 4 + length])
        self._received.clear()
        if not self._answer.done():
            self._answer.set_result(Answer(int(head[9:12]), head, body, time.monotonic()))

    async def ask(self, head: bytes, body: Sequence[bytes | memoryview] = ()) -> Answer:
        """One request and its answer.

        Raises:
            ConnectionError: the server ended the connection.
        """
        transport = self.transport
        assert transport is not None
        if transport.is_closing():
            raise ConnectionResetError("the server ended the connection")
        self._answer = self._loop.create_future()
        transport.write(head + bytes(body[0]) if len(body) == 1 and len(body[0]) < _PIECE_BYTES else head)
        if len(body) > 1 or (body and len(body[0]) >= _PIECE_BYTES):
            for part in map(memoryview, body):
                for start in range(0, len(part), _PIECE_BYTES):
                    await self._may_write.wait()
                    transport.write(part[start : start + _PIECE_BYTES])
        return await self._answer

    def close(self) -> None:
        """Ends it at once."""
        if self.transport is not None:
            self.transport.abort()


async def connect(port: int) -> Connection:
    """A connection to a server of this machine, tried again while the server's queue is full."""
    for attempt in range(_ATTEMPTS):
        with contextlib.suppress(OSError):
            return (await asyncio.get_running_loop().create_connection(Connection, "127.0.0.1", port))[1]
        await asyncio.sleep(0.05 * (attempt + 1))
    raise ConnectionError(f"nothing listens on port {port}")


def head(method: str, path: str, token: str, length: int, kind: str = "application/json", more: str = "") -> bytes:
    """Everything of a request but its body."""
    return (
        f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {token}\r\n{more}"
        f"Accept-Encoding: identity\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\n\r\n"
    ).encode()


@dataclass
class Device:
    """A device with its own connection, id and secret.

    Attributes:
        port: of the server.
        number: from which id and secret follow.
        population: whose it is.
        seed: another one makes other devices.
        broken: how often a connection ended instead of an answer: one that is idle for 75 s the server ends.
    """

    port: int
    number: int
    population: str
    seed: str = ""
    connection: Connection | None = field(default=None, repr=False)
    broken: int = 0

    def __post_init__(self) -> None:
        named = f"{self.seed} {self.population} {self.number}"
        self.device = hashlib.sha256(f"device {named}".encode()).hexdigest()[:32]
        self.secret = hashlib.sha256(f"secret {named}".encode()).hexdigest()
        self.instance = hashlib.sha256(f"instance {named}".encode()).hexdigest()[:32]

    async def call(
        self,
        method: str,
        path: str,
        document: object = None,
        body: Sequence[bytes | memoryview] = (),
        more: str = "",
        token: str = "",
    ) -> Answer:
        """One call; it connects where it is not connected, and calls again, as devices do, where a connection ends."""
        if document is not None:
            body = [json.dumps(document).encode()]
        kind = CONTENT_TYPE if method == "PUT" else "application/json"
        more = f"{INSTANCE}: {self.instance}\r\n{more}"
        named = token or f"{self.device}.{self.secret}"
        request = head(method, path, named, sum(map(len, body)), kind, more)
        for _ in range(_CALLS - 1):
            with contextlib.suppress(ConnectionError):  # counted, and called again
                return await self._ask(request, body)
            self.broken += 1
        return await self._ask(request, body)

    async def _ask(self, request: bytes, body: Sequence[bytes | memoryview]) -> Answer:
        if self.connection is None or self.connection.transport is None or self.connection.transport.is_closing():
            self.connection = await connect(self.port)
        return await self.connection.ask(request, body)

    async def enrol(self, token: str) -> Answer:
        """Enrols with an invitation's token."""
        document = {
            "device_id": self.device,
            "secret_hash": hashlib.sha256(self.secret.encode()).hexdigest(),
            "population": self.population,
            "capabilities": {"protocol": 2, "kinds": ["train", "evaluate"], "codecs": ["float32"]},
        }
        return await self.call("POST", "/v1/devices", document, token=token)

    async def poll(self, wait: float, until_idle: bool = False) -> Answer:
        """Asks for work once."""
        return await self.call("POST", "/v1/tasks/next", {"wait": wait, "until_idle": until_idle})

    async def upload(self, task_id: str, message: Sequence[bytes | memoryview]) -> Answer:
        """Sends an outcome, whose parts are joined, as a device does."""
        digest = hashlib.sha256()
        for part in message:
            digest.update(part)
        more = f"{DIGEST}: {digest.hexdigest()}\r\n{LENGTH}: {sum(map(len, message))}\r\n"
        return await self.call("PUT", f"/v1/tasks/{task_id}/outcome", body=message, more=more)

    def close(self) -> None:
        """Ends the connection, as a power cut would."""
        if self.connection is not None:
            self.connection.close()
