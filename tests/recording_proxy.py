"""A TCP proxy that writes down every byte between devices and a server, and a strict reader of what it wrote."""

from __future__ import annotations

import contextlib
import re
import socket
import threading
from dataclasses import dataclass, field

__all__ = ["Exchange", "RecordingProxy", "Reply", "Request", "exchanges"]


@dataclass
class Recording:
    """One TCP connection."""

    sent: bytearray = field(default_factory=bytearray)
    received: bytearray = field(default_factory=bytearray)


class RecordingProxy:
    """Listens on 127.0.0.1 and passes everything on to a port that may be away for a while.

    Args:
        upstream: the server's port.

    Attributes:
        port: its own.
        recordings: one for each connection that a device made.
    """

    def __init__(self, upstream: int) -> None:
        self.upstream = upstream
        self.recordings: list[Recording] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    def close(self) -> None:
        # Closing alone would not wake a thread that waits in accept().
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            try:
                server = socket.create_connection(("127.0.0.1", self.upstream))
            except OSError:
                client.close()  # the server is away: so is the proxy
                continue
            recording = Recording()
            self.recordings.append(recording)
            for source, sink, record in ((client, server, recording.sent), (server, client, recording.received)):
                threading.Thread(target=_pump, args=(source, sink, record), daemon=True).start()


def _pump(source: socket.socket, sink: socket.socket, record: bytearray) -> None:
    with contextlib.suppress(OSError):
        while piece := source.recv(1 << 16):
            record += piece
            sink.sendall(piece)
    # One side has ended: nothing more can come of this connection in either direction.
    for end in (source, sink):
        with contextlib.suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)


@dataclass(frozen=True)
class Request:
    method: str
    path: str
    headers: tuple[tuple[str, str], ...]
    body: bytes

    def header(self, name: str) -> str | None:
        return dict(self.headers).get(name)


@dataclass(frozen=True)
class Reply:
    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes


@dataclass(frozen=True)
class Exchange:
    """A request and its reply; None when the connection was cut before the reply was complete."""

    request: Request
    reply: Reply | None


def exchanges(recording: Recording, *, cut: bool = False) -> list[Exchange]:
    """Reads a connection as HTTP/1.1, every byte of it.

    Args:
        recording: of one connection.
        cut: whether the last message may be incomplete, because a process was killed.

    Raises:
        AssertionError: there are bytes that belong to no message.
    """
    requests, position = [], 0
    while (parsed := _request(bytes(recording.sent), position)) is not None:
        requests.append(parsed[0])
        position = parsed[1]
    assert cut or position == len(recording.sent), f"left over: {bytes(recording.sent[position:])!r}"
    replies: list[Reply | None] = []
    position = 0
    while (answer := _reply(bytes(recording.received), position)) is not None:
        replies.append(answer[0])
        position = answer[1]
    assert cut or position == len(recording.received)
    assert cut or len(replies) == len(requests)
    replies += [None] * (len(requests) - len(replies))
    return [Exchange(request, reply) for request, reply in zip(requests, replies, strict=False)]


def _request(data: bytes, start: int) -> tuple[Request, int] | None:
    head = _head(data, start, rb"(?P<method>[A-Z]+) (?P<path>/[!-~]*) HTTP/1\.1")
    if head is None:
        return None
    match, headers, position = head
    end = position + int(dict(headers).get("Content-Length", "0"))
    if end > len(data):
        return None
    return Request(match["method"].decode(), match["path"].decode(), headers, data[position:end]), end


def _reply(data: bytes, start: int) -> tuple[Reply, int] | None:
    head = _head(data, start, rb"HTTP/1\.1 (?P<status>[0-9]{3})[ -~]*")
    if head is None:
        return None
    match, headers, position = head
    lower = {name.lower(): value for name, value in headers}
    end = position + int(lower.get("content-length", "0"))
    if end > len(data):
        return None
    return Reply(int(match["status"]), headers, data[position:end]), end


def _head(data: bytes, start: int, line: bytes) -> tuple[re.Match[bytes], tuple[tuple[str, str], ...], int] | None:
    """First line and headers; None when they are not complete."""
    end = data.find(b"\r\n\r\n", start)
    if end < 0:
        return None
    first, *rest = data[start:end].split(b"\r\n")
    match = re.fullmatch(line, first)
    assert match is not None, first
    headers = []
    for header in rest:
        parts = re.fullmatch(rb"([A-Za-z-]+): ([ -~]*)", header)
        assert parts is not None, header
        headers.append((parts[1].decode(), parts[2].decode()))
    return match, tuple(headers), end + 4
