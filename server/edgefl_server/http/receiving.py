"""Bodies that go to a file as they arrive: one of a device at a time, and little of each in memory."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import TypeVar

import anyio
from anyio.to_thread import run_sync
from starlette.requests import ClientDisconnect, Request
from starlette.types import Message

from edgefl.errors import EdgeflError
from edgefl.wire.refusals import Refusal
from edgefl_server.http.errors import RequestError
from edgefl_server.storage import Upload
from edgefl_server.storage.uploads import Uploads

__all__ = ["Announced", "Receiving", "fill_at_once", "is_short", "is_whole", "wrong_offset"]

_T = TypeVar("_T")
_WRITERS = 8
"""Threads that write bodies; the others are for the calls that only ask."""
_AT_ONCE = 2
"""Complete bodies that are in memory at once, to be checked."""
_ACCEPTED_AT_ONCE = 16
"""Bodies that are accepted at once: what waits for the disk together waits once."""
_BUFFERS_BYTES = 16 << 20
"""For all bodies that arrive together. Small pieces are written together, and the larger the fewer there are."""
_LEAST_BUFFER_BYTES, _LARGEST_BUFFER_BYTES = 32 << 10, 512 << 10
_SHORT_AT_ONCE = 8
"""Short ones that are checked at once: each waits for the disk three times, and what waits together waits once."""
_SMALL_BYTES = 4 << 20
"""A short body may unfold into all of a model's vectors; those of a model of this size count for nothing."""
_SHORT_BYTES = 32 << 10
"""So many bytes may be read before it is known whether they are wanted: one thread can then do all there is to do."""
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
        self._acceptors = anyio.CapacityLimiter(_ACCEPTED_AT_ONCE)
        self._arriving = 0
        self._short = anyio.CapacityLimiter(_SHORT_AT_ONCE)
        self._large = threading.BoundedSemaphore(_AT_ONCE)

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

    async def accept(self, function: Callable[[], _T]) -> _T:
        """Does in a thread what waits for the disk, and needs a body only inside `in_memory`."""
        return await run_sync(function, limiter=self._acceptors)

    @property
    def in_memory(self) -> contextlib.AbstractContextManager[object]:
        """Is held by those, of which there may be so many, that have a whole body in memory."""
        return self._large

    async def use_short(self, function: Callable[[], _T]) -> _T:
        """Does what `use` does with a short body, for more of them; what unfolds it does so inside `unfolding`."""
        return await run_sync(function, limiter=self._short)

    @contextmanager
    def unfolding(self, most_bytes: int) -> Iterator[None]:
        """Waits, in a thread, until a short body that may unfold into so many bytes may."""
        with contextlib.nullcontext() if most_bytes <= _SMALL_BYTES else self._large:
            yield

    async def fill(
        self,
        upload: Upload,
        request: Request,
        limit: int,
        announced: Announced | None = None,
        alive: Callable[[], Awaitable[object]] | None = None,
        first: Message | None = None,
    ) -> None:
        """Writes a body to a file. What arrived of an announced message is kept when the connection breaks.

        Args:
            upload: to be ended by the caller if this returns; is ended if this raises.
            request: whose body.
            limit: more bytes in all get 413.
            announced: see `Announced`.
            alive: called now and then while bytes arrive.
            first: what was received of the body already.

        Raises:
            RequestError: too large, broken off, or not what was announced.
            StorageError: no space.
        """
        self._arriving += 1
        try:
            await self._fill(upload, request, limit, announced, alive, first)
        except (RequestError, EdgeflError):
            upload.discard()
            raise
        except BaseException as error:
            (upload.discard if announced is None else upload.keep)()
            if isinstance(error, ClientDisconnect):
                raise RequestError(400, Refusal.MALFORMED, "The connection ended before the body did.") from None
            raise
        finally:
            self._arriving -= 1
        _check_whole(upload, announced)

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
        alive: Callable[[], Awaitable[object]] | None,
        first: Message | None,
    ) -> None:
        buffer = bytearray()
        renewed = time.monotonic()
        try:
            more = True
            while more:
                # Not `request.stream()`: it would hold on to what arrived last, for each of many uploads.
                message, first = first or await request.receive(), None
                if message["type"] == "http.disconnect":
                    raise ClientDisconnect
                more = message.get("more_body", False)
                buffer += message.get("body", b"")
                del message
                _check_fits(upload.received + len(buffer), limit, announced)
                most = min(_LARGEST_BUFFER_BYTES, _BUFFERS_BYTES // self._arriving)
                if len(buffer) >= max(_LEAST_BUFFER_BYTES, most):
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


def is_short(request: Request) -> bool:
    """Whether a body is said to be so short that it may be read before anything is looked up."""
    length = request.headers.get("Content-Length", "")
    return length.isdecimal() and int(length) <= _SHORT_BYTES


def is_whole(first: Message) -> bool:
    """Whether the first that was received of a body is all of it."""
    return first["type"] == "http.request" and not first.get("more_body", False)


def fill_at_once(upload: Upload, body: bytes, limit: int, announced: Announced | None) -> None:
    """Does what `Receiving.fill` does, in a thread, with a body that has arrived.

    Raises:
        RequestError, StorageError: see there.
    """
    try:
        _check_fits(upload.received + len(body), limit, announced)
        upload.write(body)
    except BaseException:
        upload.discard()
        raise
    _check_whole(upload, announced)


def _check_fits(size: int, limit: int, announced: Announced | None) -> None:
    """Refuses what is more than was announced, or than may be."""
    if announced is not None and size > announced.length:
        raise wrong_offset(0)
    if size > limit:
        raise RequestError(413, Refusal.TOO_LARGE, f"The body expects at most {limit} bytes here, got more.")


def _check_whole(upload: Upload, announced: Announced | None) -> None:
    """Keeps what is a part of what was announced, and throws away what is something else; both are refused."""
    if announced is None:
        return
    if upload.received < announced.length:
        upload.keep()
        raise wrong_offset(upload.received)
    if upload.digest() != announced.digest:
        upload.discard()
        raise wrong_offset(0)


def wrong_offset(received: int) -> RequestError:
    """The answer to whoever does not go on where the server is."""
    return RequestError(
        409,
        Refusal.WRONG_OFFSET,
        f"{received} bytes of the message are here.",
        "Ask with GET …/outcome?digest=… from where to go on.",
    )
