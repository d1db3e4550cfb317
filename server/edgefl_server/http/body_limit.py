"""Refuses bodies that are too large before they are in memory, and those that never end."""

from __future__ import annotations

import time
from collections.abc import Callable

import anyio
from fastapi.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from edgefl.wire.refusals import Refusal
from edgefl_server.http.errors import response
from edgefl_server.http.protocol import MAX_HEADER_BYTES

__all__ = ["MAX_CONTROL_BYTES", "BodyLimit"]

MAX_CONTROL_BYTES = 64 << 10
"""The most bytes of a body that is neither an outcome nor a model."""

_MOST_HEADERS = 100
_LONGEST_SILENCE_SECONDS = 60.0
"""A sender that goes silent in the middle of a body for so long is cut off."""
_GRACE_SECONDS = 60.0
_CONTROL_GRACE_SECONDS = 10.0
"""The grace of a body that is bounded by `MAX_CONTROL_BYTES`: nobody needs a minute for a few words."""
_SLOWEST_BYTES_PER_SECOND = 2000.0
"""A body may take the grace, and as long as its bytes take at this rate: who sends a byte now and then is cut off."""


class _RefusedError(Exception):
    pass


class BodyLimit:
    """ASGI middleware: 431 for a header that is too long, 413 for a body that is, 408 for one that takes too long.

    What is too large is answered at once; the protocol reads and drops the rest, so that the client gets to read it.

    Args:
        app: what is protected.
        limit_of: method and path to the largest number of bytes of a body.
        silence_seconds: see `_LONGEST_SILENCE_SECONDS`.
        grace_seconds: see `_GRACE_SECONDS`.
    """

    def __init__(
        self,
        app: ASGIApp,
        limit_of: Callable[[str, str], int],
        silence_seconds: float = _LONGEST_SILENCE_SECONDS,
        grace_seconds: float = _GRACE_SECONDS,
    ) -> None:
        self._app = app
        self._limit_of = limit_of
        self._silence_seconds, self._grace_seconds = silence_seconds, grace_seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes the request on, with its body counted and timed."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        if len(scope["headers"]) > _MOST_HEADERS:
            answer = response(431, Refusal.TOO_LARGE, f"A request has at most {_MOST_HEADERS} headers.")
            await answer(scope, receive, send)
            return
        if _header_bytes(scope) > MAX_HEADER_BYTES:
            # The protocol only bounds a header that has not come whole.
            await response(431, Refusal.TOO_LARGE, f"A header has at most {MAX_HEADER_BYTES} bytes.")(
                scope, receive, send
            )
            return
        limit = self._limit_of(scope["method"], scope["path"])
        declared = next((value for name, value in scope["headers"] if name == b"content-length"), b"")
        if declared.isdigit() and int(declared) > limit:
            await _too_large(limit)(scope, receive, send)
            return
        grace = min(self._grace_seconds, _CONTROL_GRACE_SECONDS) if limit <= MAX_CONTROL_BYTES else self._grace_seconds
        got, waited, complete, started = 0, 0.0, False, False
        refusal: JSONResponse | None = None

        async def limited_receive() -> Message:
            nonlocal got, waited, complete, refusal
            if complete or refusal is not None:
                return await receive()
            left = grace + got / _SLOWEST_BYTES_PER_SECOND - waited
            before = time.monotonic()
            try:
                with anyio.fail_after(max(0.0, min(self._silence_seconds, left))):
                    message = await receive()
            except TimeoutError:
                refusal = response(408, Refusal.TOO_SLOW, "The body stopped coming, or comes too slowly.")
                refusal.headers["Connection"] = "close"
                raise _RefusedError from None
            # Only what the client takes counts, not what this server does in between.
            waited += time.monotonic() - before
            got += len(message.get("body", b""))
            complete = not message.get("more_body", False)
            if got > limit:
                refusal = _too_large(limit)
                raise _RefusedError
            return message

        async def noted_send(message: Message) -> None:
            nonlocal started
            if refusal is not None and not started:
                return  # what the application makes of a body that broke off
            started = True
            await send(message)

        try:
            await self._app(scope, limited_receive, noted_send)
        except _RefusedError:
            if started:
                raise
        if refusal is not None and not started:
            await refusal(scope, receive, send)


def _header_bytes(scope: Scope) -> int:
    """About as many as came: the request's target, and each field with its colon, space and end of line."""
    target = len(scope.get("raw_path") or b"") + len(scope.get("query_string", b""))
    return target + sum(len(name) + len(value) + 4 for name, value in scope["headers"])


def _too_large(limit: int) -> JSONResponse:
    return response(413, Refusal.TOO_LARGE, f"The body expects at most {limit} bytes, got more.")
