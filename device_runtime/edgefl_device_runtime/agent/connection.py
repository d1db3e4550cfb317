"""HTTP to one server: bearer secret, pinned certificate, and patience with bad networks and those of others."""

from __future__ import annotations

import contextlib
import http.client
import json
import random
import secrets
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

import urllib3
from urllib3.exceptions import HTTPError, SSLError

from edgefl.errors import AuthenticationError, EdgeflError
from edgefl.version import __version__
from edgefl.wire.calls import INSTANCE, PINS
from edgefl.wire.messages import CONTROL_TYPE
from edgefl_device_runtime.agent.replies import AbandonedError, NotReachedError, Reply, judged, plain
from edgefl_device_runtime.agent.settings import Settings
from edgefl_device_runtime.agent.transport import Limits, open_pool
from edgefl_device_runtime.agent.trust import Trust

__all__ = ["Connection", "Contact"]

_T = TypeVar("_T")
_PROCESS = secrets.token_hex(16)
"""Tells this process from another one with the same identity, so that the server notices a cloned card."""
_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1", "[::1]"})


class Contact:
    """Keeps when the server was heard last, and when it is tried again, as dates for people.

    Attributes:
        last: the server's last answer; None: none since the start.
        next_try: None while it can be reached.
        trouble: what it looks like while it cannot; empty otherwise.
        changed: called after each of them has changed.
    """

    def __init__(self) -> None:
        self.changed: Callable[[], None] = lambda: None
        self.last: float | None = None
        self.next_try: float | None = None
        self.trouble = ""

    def made(self) -> None:
        """The server has answered."""
        self.last, self.next_try, self.trouble = time.time(), None, ""
        self.changed()

    def lost(self, trouble: str, rest: float) -> None:
        """It was not reached, and is tried again after a rest."""
        self.trouble, self.next_try = trouble, time.time() + rest
        self.changed()


class Connection:
    """Talks to one server.

    Args:
        server: ``http://`` or ``https://`` URL.
        certificate_pin: SHA-256 of the server's certificate in hexadecimal; when given, this certificate and no other
            is accepted, whoever signed it.
        public_key_pin: SHA-256 of the server's public key as ``sha256//BASE64``; when given, only certificates of this
            key are accepted, whoever signed them. With both pins, both have to fit.
        trust: instead of both pins: several pairs of them, of which any suffices.
        settings: waiting times.
        report: told what it looks like when the server cannot be reached, each kind once, and when it is back.
        sleep: how to wait.

    Attributes:
        authorization: value of the header, sent when not empty.
        bytes_up: bytes of request bodies that were sent, again for every attempt.
        bytes_down: bytes of reply bodies received so far.
        exposed: whether what is sent travels unencrypted beyond this machine.
        contact: see `Contact`.

    Raises:
        InvalidSettingError: the URL or the pin is malformed.
    """

    def __init__(
        self,
        server: str,
        *,
        certificate_pin: str | None = None,
        public_key_pin: str | None = None,
        trust: Trust | None = None,
        settings: Settings | None = None,
        report: Callable[[str], None] = lambda line: None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.settings = settings or Settings()
        self.server = server
        self.authorization = ""
        self.bytes_up = 0
        self.bytes_down = 0
        self.contact = Contact()
        self._report = report
        self._sleep = sleep
        # Only for jitter: devices must differ, and no result depends on it.
        self._random = random.Random()
        self._count = threading.Lock()
        self._limits = Limits(self.settings)
        self._trust = trust or Trust([(certificate_pin, public_key_pin)])
        self._pool, self._prefix = open_pool(server, self._trust, self.settings, self._limits)
        self.exposed = self._pool.scheme == "http" and self._pool.host not in _LOOPBACK

    def attempt(
        self,
        method: str,
        path: str,
        *,
        shows: Callable[[Reply], bool] = lambda reply: reply.content_type == CONTROL_TYPE,
        body: bytes | memoryview | None = None,
        content_type: str = "application/json",
        authorization: str | None = None,
        headers: Mapping[str, str] | None = None,
        wait: float = 0.0,
        longest: int | None = None,
        patience: float | None = None,
        check: Callable[[], None] = lambda: None,
    ) -> Reply:
        """One request and its reply.

        Args:
            method: of HTTP.
            path: from ``/v1``.
            shows: whether an answer of status 2xx is one that only the server gives.
            body: sent as it is, in pieces.
            content_type: of the body.
            authorization: instead of the connection's own.
            headers: further ones.
            wait: seconds that the server may take before it answers, beyond the ordinary.
            longest: bytes of the answer's body; by default the settings' ``longest_control_answer``.
            patience: instead of every waiting time of the settings.
            check: called before every piece of the body; may raise to end the request.

        Returns:
            An answer of the server's: one of status 2xx, or an error of status 4xx.

        Raises:
            NotReachedError: no answer, one of somebody else, or one that says that another attempt may help.
            AuthenticationError: the server does not accept the secret or token.
        """
        longest = self.settings.longest_control_answer if longest is None else longest
        sent = {} if body is None else {"Content-Type": content_type, "Content-Length": str(len(body))}
        pieces = None if body is None else self._pieces(body, check)
        with self.stream(
            method,
            path,
            body=pieces,
            headers={**sent, **(headers or {})},
            authorization=authorization,
            wait=wait,
            longest=longest,
            patience=patience,
        ) as response:
            received = bytearray()
            for piece in response.stream(self.settings.piece, decode_content=False):
                received += piece
                self.add(down=len(piece))
                if len(received) > longest:
                    raise NotReachedError("long", f"What answers for {self.server} sends more than {longest} bytes.")
            reply = Reply(response.status, response.headers, bytes(received))
        return self.judge(reply, shows)

    def call(self, method: str, path: str, **arguments: Any) -> Reply:
        """Does what `attempt` does, repeated for as long as the server cannot be reached."""
        return self.patiently(lambda: self.attempt(method, path, **arguments))

    def attempt_json(self, method: str, path: str, document: Mapping[str, Any], **arguments: Any) -> Reply:
        """Does what `attempt` does, with a JSON body."""
        return self.attempt(method, path, body=json.dumps(document).encode(), **arguments)

    @contextlib.contextmanager
    def stream(
        self,
        method: str,
        path: str,
        *,
        body: Iterator[bytes] | None = None,
        headers: Mapping[str, str] | None = None,
        authorization: str | None = None,
        wait: float = 0.0,
        longest: int = 0,
        patience: float | None = None,
    ) -> Iterator[urllib3.BaseHTTPResponse]:
        """A reply whose body has not been read, and which nobody has judged yet.

        Raises:
            NotReachedError: there is none, or it broke off inside the ``with`` block, or whatever else the network
                brought about there. Only what edgefl itself says goes through.
        """
        settings, before = self.settings, self.bytes_down
        sent = self._headers(authorization, headers or {})
        if patience is None:
            timeout = urllib3.Timeout(connect=settings.connect_timeout, read=settings.read_timeout + wait)
        else:
            timeout = urllib3.Timeout(connect=patience, read=patience)
        try:
            with self._limits.set(longest, settings.send_timeout if patience is None else patience):
                response = self._pool.request(
                    method,
                    self._prefix + path,
                    body=body,
                    headers=sent,
                    timeout=timeout,
                    retries=False,
                    redirect=False,
                    preload_content=False,
                    decode_content=False,
                )
                try:
                    # Not asked for. Decoding could make gigabytes of a few megabytes.
                    if response.headers.get("Content-Encoding", "identity").strip().lower() != "identity":
                        raise NotReachedError(
                            "encoded", f"What answers for {self.server} compresses unasked; a proxy or captive portal?"
                        )
                    yield response
                finally:
                    # A reply that was not read to its end would be taken for the next one's beginning. One that was
                    # has given its connection back already.
                    response.close()
        except (EdgeflError, AbandonedError):
            raise
        except Exception as error:
            # Not all that a malformed answer makes of http.client and urllib3 is of theirs: a chunk of -5 bytes is a
            # ValueError. None of it may end a device.
            raise self._failure(error, self.bytes_down > before) from error

    def patiently(self, attempt: Callable[[], _T], *, certain: bool = False) -> _T:
        """Returns what an attempt returns, once one reaches the server.

        Args:
            attempt: raises `NotReachedError` when it did not.
            certain: whether another certificate than expected is an `AuthenticationError`: right at the very first
                contact, where a pin may have been mistaken.
        """
        settings, pause, told, reminded = self.settings, self.settings.first_retry, set[str](), time.monotonic()
        while True:
            try:
                result = attempt()
            except NotReachedError as error:
                if certain and error.kind == "certificate":
                    raise AuthenticationError(error.message, hint=error.hint) from error
                if error.progress:
                    pause = settings.first_retry
                rest = pause * (1 - settings.jitter + settings.jitter * self._random.random())
                rest = max(rest, min(error.retry_after or 0.0, settings.longest_rest))
                self.contact.lost(error.message, rest)
                if error.kind not in told:
                    self._report(f"{error} Trying again until it answers.")
                elif time.monotonic() - reminded >= settings.remind:
                    self._report(f"{self._since()}, next try in {rest:.0f} s: {error}")
                    reminded = time.monotonic()
                told.add(error.kind)
                self._sleep(rest)
                pause = min(2 * pause, settings.longest_retry)
            else:
                if told:
                    self._report(f"{self.server} answers again.")
                return result

    def judge(self, reply: Reply, shows: Callable[[Reply], bool]) -> Reply:
        """Returns a reply that is the server's; see `judged`.

        Raises:
            NotReachedError: it is not.
            AuthenticationError: it says that it does not accept the secret or token.
        """
        judged(reply, self.server, shows)
        self.contact.made()
        self._trust.learn(reply.headers.get(PINS, ""))
        if reply.status == 401:
            raise AuthenticationError(
                f"{self.server} does not accept this device: {reply.message}",
                hint=reply.hint or "Ask the operator for a new invitation.",
            )
        return reply

    def close(self) -> None:
        """Closes idle connections."""
        self._pool.close()

    def add(self, up: int = 0, down: int = 0) -> None:
        """Counts bytes of bodies."""
        with self._count:
            self.bytes_up += up
            self.bytes_down += down

    def _pieces(self, body: bytes | memoryview, check: Callable[[], None]) -> Iterator[bytes]:
        """Cuts a body into what urllib3 sends one by one, each with a time-out of its own; counted once it is gone."""
        view = memoryview(body)
        for start in range(0, len(view), self.settings.send_piece):
            check()
            piece = bytes(view[start : start + self.settings.send_piece])
            yield piece
            self.add(up=len(piece))

    def _headers(self, authorization: str | None, further: Mapping[str, str]) -> dict[str, str]:
        headers = {
            "User-Agent": f"edgefl/{__version__}",
            "Accept-Encoding": "identity",
            INSTANCE: self.settings.instance or _PROCESS,
            **further,
        }
        value = self.authorization if authorization is None else authorization
        if value:
            headers["Authorization"] = value
        return headers

    def _since(self) -> str:
        if self.contact.last is None:
            return f"{self.server} has not answered since the start"
        return f"{self.server} answered last at {time.strftime('%Y-%m-%d %H:%M', time.localtime(self.contact.last))}"

    def _failure(self, error: Exception, progress: bool) -> NotReachedError:
        """Says what a broken or impossible connection looks like."""
        text, cause = str(error), error.args[0] if error.args else None
        if isinstance(error, SSLError):
            if isinstance(cause, ssl.SSLCertVerificationError) or "ingerprint" in text:
                return NotReachedError(
                    "certificate",
                    f"{self.server} shows another certificate than expected: {plain(str(cause))}.",
                    hint="A captive portal does so too. If it stays so, ask the operator for the certificate pin (it "
                    "is in the invitation) and compare.",
                )
            if any(word in text for word in ("WRONG_VERSION_NUMBER", "HTTP_REQUEST", "UNKNOWN_PROTOCOL")):
                return NotReachedError(
                    "no tls",
                    f"What answers for {self.server} speaks something else than TLS, perhaps plain HTTP.",
                    progress=progress,
                )
        innermost = _innermost(error)
        if isinstance(innermost, http.client.BadStatusLine) and not isinstance(
            innermost, http.client.RemoteDisconnected
        ):
            return NotReachedError(
                "no http",
                f"What answers for {self.server} does not speak HTTP; perhaps it speaks TLS, and the address should "
                f"begin with https://.",
                progress=progress,
            )
        if not isinstance(innermost, (OSError, HTTPError, http.client.HTTPException)):
            return NotReachedError(
                "bad http",
                f"What answers for {self.server} speaks HTTP that cannot be read ({type(innermost).__name__}: "
                f"{plain(str(innermost))}).",
                progress=progress,
            )
        if isinstance(innermost, http.client.RemoteDisconnected):
            short = "it ended the connection without an answer"
            if self._pool.scheme == "http" and self.contact.last is None:
                # So a server of edgefl's behind TLS does.
                short += "; perhaps it speaks TLS: try https://"
        else:
            short = plain(getattr(innermost, "strerror", None) or str(innermost) or type(innermost).__name__)
        return NotReachedError("away", f"{self.server} cannot be reached ({short}).", progress=progress)


def _innermost(error: BaseException) -> BaseException:
    seen = {id(error)}
    while True:
        inner = error.__cause__ or next((each for each in error.args if isinstance(each, BaseException)), None)
        if inner is None or id(inner) in seen:
            return error
        seen.add(id(inner))
        error = inner
