"""Bodies that go to a file as they arrive: one of a device at a time, and little of each in memory."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TypeVar

import anyio
from anyio.to_thread import run_sync
from starlette.requests import ClientDisconnect, Request

from edgefl.errors import EdgeflError
from edgefl.wire.refusals import Refusal
from edgefl_server.http.errors import RequestError
from edgefl_server.storage import Upload
from edgefl_server.storage.uploads import Uploads

__all__ = ["Announced", "Receiving", "wrong_offset"]

_T = TypeVar("_T")
_WRITERS = 8
"""Threads that write bodies; the others are for the calls that only ask."""
_AT_ONCE = 2
"""Complete bodies that are in memory at once, to be checked."""
_BUFFER_BYTES = 32 << 10
"""Small pieces are written together."""
_RENEWAL_SECONDS = 5.0
"""The sender of what arrives is said to be alive so often."""


@dataclass(frozen=True)
class Announced:
    """A sender's announcement of a message, so that it can go on where it stopped.

    Attributes:
        digest: SHA-256 of the whole message.
        length: its bytes.
        offset: how many of them come before this body.
    """

    digest: str
    length: int
    offset: int


@dataclass
class _Current:
    scope: anyio.CancelScope = field(default_factory=anyio.CancelScope)
    done: anyio.Event = field(default_factory=anyio.Event)
    superseded: bool = False


class Receiving:
    """The bodies that are being received."""

    def __init__(self) -> None:
        self._current: dict[str, _Current] = {}
        self._writers = anyio.CapacityLimiter(_WRITERS)
        self._users = anyio.CapacityLimiter(_AT_ONCE)

    @asynccontextmanager
    async def alone(self, device: str) -> AsyncIterator[None]:
        """The only one of a device: an older one that is still under way is cut off first.

        Raises:
            RequestError: 409 ``superseded``: a newer one came.
        """
        while (older := self._current.get(device)) is not None:
            older.superseded = True
            older.scope.cancel()
            await older.done.wait()
        mine = self._current[device] = _Current()
        try:
            with mine.scope:
                yield
        finally:
            del self._current[device]
            mine.done.set()
        if mine.superseded and mine.scope.cancelled_caught:
            raise RequestError(409, Refusal.SUPERSEDED, "The device began to send anew.")

    async def use(self, function: Callable[[], _T]) -> _T:
        """Does in a thread what needs a whole body in memory, for only so many at once."""
        return await run_sync(function, limiter=self._users)

    async def fill(
        self,
        upload: Upload,
        request: Request,
        limit: int,
        announced: Announced | None = None,
        alive: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        """Writes a body to a file. What arrived of an announced message is kept when the connection breaks.

        Args:
            upload: to be ended by the caller if this returns; is ended if this raises.
            request: whose body.
            limit: more bytes in all get 413.
            announced: see `Announced`.
            alive: called now and then while bytes arrive.

        Raises:
            RequestError: too large, broken off, or not what was announced.
            StorageError: no space.
        """
        try:
            await self._fill(upload, request, limit, announced, alive)
        except (RequestError, EdgeflError):
            upload.discard()
            raise
        except BaseException as error:
            (upload.discard if announced is None else upload.keep)()
            if isinstance(error, ClientDisconnect):
                raise RequestError(400, Refusal.MALFORMED, "The connection ended before the body did.") from None
            raise
        if announced is None:
            return
        if upload.received < announced.length:
            upload.keep()
            raise wrong_offset(upload.received)
        if upload.digest() != announced.digest:
            upload.discard()
            raise wrong_offset(0)

    @asynccontextmanager
    async def file(self, request: Request, uploads: Uploads, limit: int) -> AsyncIterator[Upload]:
        """A body as a file, for as long as the block takes.

        Raises:
            RequestError: too large or broken off.
            StorageError: no space.
        """
        upload = await run_sync(uploads.anonymous, limiter=self._writers)
        try:
            await self.fill(upload, request, limit)
            yield upload
        finally:
            upload.discard()

    async def _fill(
        self,
        upload: Upload,
        request: Request,
        limit: int,
        announced: Announced | None,
        alive: Callable[[], Awaitable[None]] | None,
    ) -> None:
        buffer = bytearray()
        renewed = time.monotonic()
        try:
            more = True
            while more:
                # Not `request.stream()`: it would hold on to what arrived last, for each of many uploads.
                message = await request.receive()
                if message["type"] == "http.disconnect":
                    raise ClientDisconnect
                more = message.get("more_body", False)
                buffer += message.get("body", b"")
                del message
                if announced is not None and upload.received + len(buffer) > announced.length:
                    raise wrong_offset(0)
                if upload.received + len(buffer) > limit:
                    raise RequestError(
                        413, Refusal.TOO_LARGE, f"The body expects at most {limit} bytes here, got more."
                    )
                if len(buffer) >= _BUFFER_BYTES:
                    await run_sync(upload.write, buffer, limiter=self._writers)
                    buffer = bytearray()
                if alive is not None and time.monotonic() - renewed >= _RENEWAL_SECONDS:
                    renewed = time.monotonic()
                    await alive()
            await run_sync(upload.write, buffer, limiter=self._writers)
        except (RequestError, EdgeflError):
            raise
        except BaseException:
            if announced is not None:
                upload.write(buffer)
            raise


def wrong_offset(received: int) -> RequestError:
    """The answer to whoever does not go on where the server is."""
    return RequestError(
        409,
        Refusal.WRONG_OFFSET,
        f"{received} bytes of the message are here.",
        "Ask with GET …/outcome?digest=… from where to go on.",
    )
