"""HTTP to one server: bearer secret, pinned certificate, patience with bad networks, downloads that resume."""

from __future__ import annotations

import json
import random
import secrets
import ssl
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import urllib3
from urllib3.exceptions import HTTPError, LocationParseError, SSLError

from edgefl.credentials import check_pin
from edgefl.errors import (
    AuthenticationError,
    HashMismatchError,
    InvalidSettingError,
    ProtocolError,
    ServerUnavailableError,
    storage_error,
)
from edgefl.version import __version__
from edgefl_device_runtime.agent.cache import Cache
from edgefl_device_runtime.agent.settings import Settings

__all__ = ["Connection", "Reply", "UnexpectedReplyError"]

_T = TypeVar("_T")
_INSTANCE = secrets.token_hex(16)
"""Tells this process from another one with the same identity, so that the server notices a cloned card."""
_TRANSIENT = frozenset({408, 425, 429, 500, 502, 503, 504})
_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1", "[::1]"})


@dataclass(frozen=True)
class Reply:
    """What the server answered."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> dict[str, Any]:
        """The body as a JSON object; empty when it is none."""
        try:
            document = json.loads(self.body)
        except ValueError:
            return {}
        return document if isinstance(document, dict) else {}

    @property
    def code(self) -> str:
        """The machine-readable code of an error."""
        return self._error("code")

    @property
    def message(self) -> str:
        """What the server says for people; its status when it says nothing."""
        return self._error("message") or f"The server answered with HTTP status {self.status}."

    @property
    def hint(self) -> str | None:
        """What the server advises."""
        return self._error("hint") or None

    @property
    def retry_after(self) -> float | None:
        """Seconds after which the server wants to hear from this device again."""
        try:
            seconds = float(self.headers.get("Retry-After", ""))
        except ValueError:
            return None
        return seconds if 0 <= seconds < float("inf") else None

    def _error(self, key: str) -> str:
        error = self.json().get("error")
        value = error.get(key) if isinstance(error, dict) else None
        return value if isinstance(value, str) else ""


class UnexpectedReplyError(ProtocolError):
    """The server answered something else than what was asked for."""

    def __init__(self, reply: Reply, asked: str) -> None:
        super().__init__(f"{asked}: {reply.message}", hint=reply.hint)
        self.reply = reply


class _UnreachableError(ServerUnavailableError):
    """One attempt failed in a way that another may not."""

    def __init__(self, message: str, retry_after: float | None = None, progress: bool = False) -> None:
        super().__init__(message)
        self.retry_after = retry_after
        self.progress = progress


class Connection:
    """Talks to one server.

    Args:
        server: ``http://`` or ``https://`` URL.
        certificate_pin: SHA-256 of the server's certificate in hexadecimal; when given, this certificate and no other
            is accepted, whoever signed it.
        settings: waiting times.
        report: told once when the server cannot be reached, and once when it is back.
        sleep: how to wait.

    Attributes:
        authorization: value of the header, sent when not empty.
        bytes_up: bytes of request bodies sent so far, again for every attempt.
        bytes_down: bytes of reply bodies received so far.
        exposed: whether what is sent travels unencrypted beyond this machine.

    Raises:
        InvalidSettingError: the URL or the pin is malformed.
    """

    def __init__(
        self,
        server: str,
        *,
        certificate_pin: str | None = None,
        settings: Settings | None = None,
        report: Callable[[str], None] = lambda line: None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.settings = settings or Settings()
        self.server = server
        self.authorization = ""
        self.bytes_up = 0
        self.bytes_down = 0
        self._report = report
        self._sleep = sleep
        # Only for jitter: devices must differ, and no result depends on it.
        self._random = random.Random()
        self._count = threading.Lock()
        self._pool, self._prefix = _pool(server, certificate_pin, self.settings)
        self.exposed = self._pool.scheme == "http" and self._pool.host not in _LOOPBACK

    def attempt(
        self,
        method: str,
        path: str,
        *,
        body: bytes | None = None,
        content_type: str = "application/json",
        authorization: str | None = None,
        wait: float = 0.0,
    ) -> Reply:
        """One request and its reply.

        Args:
            method: of HTTP.
            path: from ``/v1``.
            body: sent as it is.
            content_type: of the body.
            authorization: instead of the connection's own.
            wait: seconds that the server may take before it answers, beyond the ordinary.

        Raises:
            ServerUnavailableError: no reply, or one that says that another attempt may help.
            AuthenticationError: the certificate is not the right one, or the server does not accept the secret.
        """
        headers = self._headers(authorization)
        if body is not None:
            headers["Content-Type"] = content_type
            self._add(up=len(body))
        try:
            response = self._pool.request(
                method,
                self._prefix + path,
                body=body,
                headers=headers,
                timeout=urllib3.Timeout(self.settings.connect_timeout, self.settings.read_timeout + wait),
                retries=False,
                redirect=False,
            )
        except HTTPError as error:
            raise self._failure(error) from error
        self._add(down=len(response.data))
        return self._judged(Reply(response.status, response.headers, response.data))

    def call(self, method: str, path: str, **arguments: Any) -> Reply:
        """Like `attempt`, repeated for as long as the server cannot be reached."""
        return self._patiently(lambda: self.attempt(method, path, **arguments))

    def call_json(self, method: str, path: str, document: Mapping[str, Any], **arguments: Any) -> Reply:
        """Like `call`, with a JSON body."""
        return self.call(method, path, body=json.dumps(document).encode(), **arguments)

    def download(self, path: str, content_hash: str, cache: Cache) -> Path:
        """Brings content into a cache; goes on where an earlier attempt, also of another process, was cut off.

        Raises:
            UnexpectedReplyError: the server does not hand it out.
            HashMismatchError: a download from beginning to end was not what its hash says.
            StorageError: it cannot be stored.
            AuthenticationError: see `attempt`.
        """
        found = cache.find(content_hash)
        if found is not None:
            return found
        resumed = cache.part(content_hash).exists()
        self._patiently(lambda: self._fetch(path, cache.part(content_hash)))
        try:
            return cache.adopt(content_hash)
        except HashMismatchError:
            if not resumed:
                raise
        # The older part may have been damaged; a whole download decides.
        self._patiently(lambda: self._fetch(path, cache.part(content_hash)))
        return cache.adopt(content_hash)

    def close(self) -> None:
        """Closes idle connections."""
        self._pool.close()

    def _fetch(self, path: str, part: Path) -> None:
        """Appends to ``part`` what is missing."""
        start = part.stat().st_size if part.exists() else 0
        headers = self._headers(None)
        if start:
            headers["Range"] = f"bytes={start}-"
        received = 0
        try:
            response = self._pool.request(
                "GET",
                self._prefix + path,
                headers=headers,
                timeout=urllib3.Timeout(self.settings.connect_timeout, self.settings.read_timeout),
                retries=False,
                redirect=False,
                preload_content=False,
                decode_content=False,
            )
            try:
                if response.status == 416 and start:
                    response.drain_conn()
                    return  # nothing is missing; the hash decides
                if response.status not in (200, 206):
                    reply = self._judged(Reply(response.status, response.headers, response.read()))
                    raise UnexpectedReplyError(reply, f"GET {path}")
                resumes = response.status == 206 and _starts_at(response.headers.get("Content-Range", ""), start)
                if response.status == 206 and not resumes:
                    part.unlink()
                    raise _UnreachableError(f"GET {path}: the server sent another range than asked for.")
                try:
                    with part.open("ab" if resumes else "wb") as file:
                        for piece in response.stream(self.settings.piece, decode_content=False):
                            received += len(piece)
                            self._add(down=len(piece))
                            file.write(piece)
                except OSError as error:
                    raise storage_error(error, "store", part) from error
            finally:
                # A reply that was not read to its end would be taken for the next one's beginning. One that was has
                # given its connection back already.
                response.close()
        except HTTPError as error:
            raise self._failure(error, progress=received > 0) from error

    def _patiently(self, attempt: Callable[[], _T]) -> _T:
        pause, complained = self.settings.first_retry, False
        while True:
            try:
                result = attempt()
            except _UnreachableError as error:
                if error.progress:
                    pause = self.settings.first_retry
                share = self.settings.jitter
                rest = pause * (1 - share + share * self._random.random())
                rest = max(rest, min(error.retry_after or 0.0, self.settings.longest_rest))
                if not complained:
                    self._report(f"{error.message} Trying again until it answers.")
                complained = True
                self._sleep(rest)
                pause = min(2 * pause, self.settings.longest_retry)
            else:
                if complained:
                    self._report(f"{self.server} answers again.")
                return result

    def _headers(self, authorization: str | None) -> dict[str, str]:
        headers = {"User-Agent": f"edgefl/{__version__}", "EdgeFL-Instance": _INSTANCE}
        value = self.authorization if authorization is None else authorization
        if value:
            headers["Authorization"] = value
        return headers

    def _judged(self, reply: Reply) -> Reply:
        if reply.status in _TRANSIENT:
            raise _UnreachableError(
                f"{self.server} answered with HTTP status {reply.status}.", retry_after=reply.retry_after
            )
        if reply.status == 401:
            raise AuthenticationError(
                f"{self.server} does not accept this device: {reply.message}",
                hint=reply.hint or "Ask the operator for a new invitation.",
            )
        return reply

    def _failure(self, error: HTTPError, progress: bool = False) -> Exception:
        cause = error.args[0] if isinstance(error, SSLError) and error.args else None
        if isinstance(cause, ssl.SSLCertVerificationError) or (
            isinstance(error, SSLError) and "ingerprint" in str(error)
        ):
            return AuthenticationError(
                f"{self.server} shows another certificate than expected: {cause}.",
                hint="Ask the operator for the certificate pin (it is in the invitation) and compare.",
            )
        return _UnreachableError(f"{self.server} cannot be reached ({_short(error)}).", progress=progress)

    def _add(self, up: int = 0, down: int = 0) -> None:
        with self._count:
            self.bytes_up += up
            self.bytes_down += down


def _pool(server: str, certificate_pin: str | None, settings: Settings) -> tuple[urllib3.HTTPConnectionPool, str]:
    try:
        url = urllib3.util.parse_url(server)
    except LocationParseError:
        url = None
    if url is None or url.scheme not in ("http", "https") or not url.host:
        raise InvalidSettingError(
            f"Expected a server URL like https://host:8443, got {server!r}.",
            hint="The operator's invitation holds the right one.",
        )
    prefix = (url.path or "").rstrip("/")
    # Two connections: the lease is renewed while a download or upload may be under way.
    if url.scheme == "http":
        if certificate_pin:
            raise InvalidSettingError(
                "A certificate pin needs an https:// server, got an http:// one.",
                hint="Leave the pin out, or use the server's https:// address.",
            )
        return urllib3.HTTPConnectionPool(url.host, url.port, maxsize=2), prefix
    if certificate_pin is None:
        return urllib3.HTTPSConnectionPool(url.host, url.port, maxsize=2), prefix
    pin = check_pin(certificate_pin, "the device's settings", hint="The operator's invitation holds it.")
    # The pin names the one certificate, so who signed it does not matter.
    return urllib3.HTTPSConnectionPool(
        url.host, url.port, maxsize=2, cert_reqs="CERT_NONE", assert_fingerprint=pin
    ), prefix


def _starts_at(content_range: str, start: int) -> bool:
    return content_range.replace("bytes ", "", 1).startswith(f"{start}-")


def _short(error: HTTPError) -> str:
    """The innermost cause in a few words."""
    cause: BaseException = error
    while cause.__cause__ is not None:
        cause = cause.__cause__
    return getattr(cause, "strerror", None) or type(cause).__name__
