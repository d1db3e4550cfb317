"""Refuses bodies that are too large before they are in memory."""

from __future__ import annotations

from collections.abc import Callable

import anyio
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from edgefl_server.http.errors import response

__all__ = ["BodyLimit"]

_MOST_DRAINED = 64 << 20
"""A body that is too large is read and dropped up to here, so that the client gets to read the answer."""
_LONGEST_DRAIN_SECONDS = 60


class _TooLargeError(Exception):
    pass


class BodyLimit:
    """ASGI middleware: 413 for a body longer than the limit of its path.

    Args:
        app: what is protected.
        limit_of: method and path to the largest number of bytes.
    """

    def __init__(self, app: ASGIApp, limit_of: Callable[[str, str], int]) -> None:
        self._app = app
        self._limit_of = limit_of

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes the request on, with its body counted."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        limit = self._limit_of(scope["method"], scope["path"])
        declared = next((value for name, value in scope["headers"] if name == b"content-length"), b"")
        got, complete, started = 0, False, False
        exceeded = declared.isdigit() and int(declared) > limit

        async def limited_receive() -> Message:
            nonlocal got, complete, exceeded
            message = await receive()
            got += len(message.get("body", b""))
            complete = not message.get("more_body", False)
            if got > limit:
                exceeded = True
                raise _TooLargeError
            return message

        async def noted_send(message: Message) -> None:
            nonlocal started
            if exceeded and not started:
                return  # what the application makes of a body that broke off
            started = True
            await send(message)

        if not exceeded:
            try:
                await self._app(scope, limited_receive, noted_send)
            except _TooLargeError:
                if started:
                    raise
        if exceeded and not started:
            if not complete:
                await self._drain(receive, got)
            answer = response(413, "too_large", f"The body expects at most {limit} bytes, got more.")
            answer.headers["Connection"] = "close"
            await answer(scope, receive, send)

    async def _drain(self, receive: Receive, got: int) -> None:
        with anyio.move_on_after(_LONGEST_DRAIN_SECONDS):
            while got < _MOST_DRAINED:
                message = await receive()
                got += len(message.get("body", b""))
                if message["type"] != "http.request" or not message.get("more_body", False):
                    return
