"""urllib3 with limits: every piece of a request has its own time-out, and an answer is bounded in bytes and in time."""

from __future__ import annotations

import http.client
import io
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import urllib3
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import LocationParseError, SSLError

from edgefl.errors import InvalidSettingError
from edgefl_device_runtime.agent.replies import plain
from edgefl_device_runtime.agent.settings import Settings
from edgefl_device_runtime.agent.trust import Trust

__all__ = ["Limits", "open_pool"]

_HEAD = 1 << 17
"""Bytes that status line, headers and chunk sizes of an answer may take beside its body."""


class Limits(threading.local):
    """Sets how much of the next answer is read, in this thread.

    Args:
        settings: see `Settings`.

    Attributes:
        body: bytes of the body.
        send_timeout: of a piece of a request.
        slowest: bytes a second below which the other side counts as silent.
    """

    def __init__(self, settings: Settings) -> None:
        self.body = settings.longest_control_answer
        self.send_timeout = settings.send_timeout
        self.slowest = settings.slowest

    @contextmanager
    def set(self, body: int, send_timeout: float) -> Iterator[None]:
        """Other limits for the requests of a ``with`` block."""
        before = self.body, self.send_timeout
        self.body, self.send_timeout = body, send_timeout
        try:
            yield
        finally:
            self.body, self.send_timeout = before


class _BoundedStream(io.RawIOBase):
    """A socket's bytes until there are too many of them, or they come too slowly.

    A time-out of the socket alone would bound the silence between two bytes, not the time of the answer: a byte every
    ten seconds would hold a device for ever.
    """

    def __init__(self, raw: Any, sock: socket.socket, limits: Limits) -> None:
        self._raw, self._socket = raw, sock
        self._silence = sock.gettimeout()
        self._most = _HEAD
        self._slowest = limits.slowest
        self._started = time.monotonic()
        self._read = 0

    def allow(self, body: int) -> None:
        """Lets the body come, once the head has."""
        self._most = self._read + body + _HEAD

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        if self._silence is not None:
            credit = self._silence + self._read / self._slowest
            left = self._started + credit - time.monotonic()
            if left <= 0:
                raise TimeoutError("the answer comes too slowly")
            self._socket.settimeout(min(left, self._silence))
        count: int | None = self._raw.readinto(buffer)
        self._read += count or 0
        if self._read > self._most:
            raise OSError("the answer is longer than it may be")
        return count

    def close(self) -> None:
        self._raw.close()
        super().close()


def _answering(limits: Limits) -> Callable[..., http.client.HTTPResponse]:
    class Answer(http.client.HTTPResponse):
        def __init__(self, sock: socket.socket, *arguments: Any, **options: Any) -> None:
            super().__init__(sock, *arguments, **options)
            self._bounded = _BoundedStream(self.fp.detach(), sock, limits)
            self.fp = io.BufferedReader(self._bounded)

        def begin(self) -> None:
            super().begin()
            self._bounded.allow(limits.body)

    return Answer


class _Patient(HTTPConnection):
    """A connection whose pieces may each take their own time: urllib3 gives the whole body the time of a connect."""

    def __init__(self, *arguments: Any, limits: Limits, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._limits = limits
        self.response_class = _answering(limits)  # type: ignore[assignment]

    def send(self, data: Any) -> None:
        if self.sock is not None:
            self.sock.settimeout(self._limits.send_timeout)
        super().send(data)


class _PatientTls(_Patient, HTTPSConnection):
    """The same over TLS; perhaps with certain certificates only."""

    def __init__(self, *arguments: Any, trust: Trust, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._trust = trust

    def connect(self) -> None:
        super().connect()
        if not self._trust.is_pinned:
            return
        # TLS has shown that the server holds the private key to this certificate, and nothing has been sent yet.
        shown = self.sock.getpeercert(binary_form=True)  # type: ignore[union-attr]
        if not self._trust.accepts(shown or b""):
            self.close()
            raise SSLError("Fingerprints did not match: neither the certificate nor its key is a pinned one")
        self.is_verified = True


class _Pool(urllib3.HTTPConnectionPool):
    ConnectionCls = _Patient


class _TlsPool(urllib3.HTTPSConnectionPool):
    ConnectionCls = _PatientTls


def open_pool(server: str, trust: Trust, settings: Settings, limits: Limits) -> tuple[urllib3.HTTPConnectionPool, str]:
    """Connections to a server, and the path that its URL begins with.

    Raises:
        InvalidSettingError: the URL is malformed, or there are pins without TLS.
    """
    try:
        url = urllib3.util.parse_url(server)
    except LocationParseError:
        url = None  # refused below, with what is no URL of a server's either
    if url is None or url.scheme not in ("http", "https") or not url.host:
        raise InvalidSettingError(
            f"Expected a server URL like https://host:8443, got {server!r}.",
            hint="The operator's invitation holds the right one.",
        )
    try:
        url.host.encode("idna")
    except UnicodeError as error:
        raise InvalidSettingError(
            f"Expected a server URL with the name of a host, got {server!r}: {plain(str(error))}.",
            hint="The operator's invitation holds the right one.",
        ) from error
    prefix = (url.path or "").rstrip("/")
    options: dict[str, Any] = {
        # The lease is renewed while a download or upload is under way, and a task may be given back meanwhile.
        "maxsize": 3,
        "limits": limits,
        "socket_options": [
            *HTTPConnection.default_socket_options,
            (socket.SOL_SOCKET, socket.SO_SNDBUF, settings.send_buffer),
        ],
    }
    if url.scheme == "http":
        if trust.is_pinned:
            raise InvalidSettingError(
                "A certificate pin needs an https:// server, got an http:// one.",
                hint="Leave the pin out, or use the server's https:// address.",
            )
        return _Pool(url.host, url.port, **options), prefix
    options["trust"] = trust
    if trust.is_pinned:
        # A pin names the one certificate or key, so who signed it does not matter.
        options["cert_reqs"] = "CERT_NONE"
    return _TlsPool(url.host, url.port, **options), prefix
