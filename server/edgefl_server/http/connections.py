"""Bounds how many connections there are at once, and chooses which one goes when there are more."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import random
import resource
import socket
import ssl
import time
from collections.abc import Callable

from edgefl.wire.messages import CONTROL_TYPE
from edgefl.wire.refusals import Refusal
from edgefl_server.http.errors import error_body

__all__ = ["Acceptor", "Connections", "Place", "most_connections", "raise_file_limit"]

_FILES_FOR_THE_REST = 256
"""File descriptors for the database, the listener and whatever the libraries hold."""
_FILES_PER_CONNECTION = 2
"""The socket, and the file that it fetches or fills."""
_MOST_BY_DEFAULT = 16384
"""Each costs about 15 kB of memory, also when it says nothing."""
_HANDSHAKE_SECONDS = 20.0
_ACCEPTED_AT_ONCE = 64
"""So that a flood of connections does not hold up those that are there."""
_LINGER_SECONDS, _MOST_LINGERING = 2.0, 64
"""Whoever is turned away gets so long to read why; a socket closed with unread bytes would lose the answer."""
_PAUSE_SECONDS = 1.0
_QUIET_SECONDS = 60.0
"""The same trouble is told once in so long."""

_log = logging.getLogger(__name__)


def raise_file_limit() -> int:
    """Raises this process's limit of open files as far as it may; the new limit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        with contextlib.suppress(ValueError, OSError):  # some systems have a lower limit of their own
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return 1 << 20 if soft == resource.RLIM_INFINITY else soft


def most_connections(files: int) -> int:
    """Says for how many connections a limit of open files has room, beside what the rest of the server opens."""
    return max(16, min(_MOST_BY_DEFAULT, (files - _FILES_FOR_THE_REST) // _FILES_PER_CONNECTION))


class Place:
    """One connection's place among those that a server has.

    Args:
        connections: all of them.
        close: ends the connection at once.
    """

    def __init__(self, connections: Connections, close: Callable[[], object]) -> None:
        self._connections = connections
        self.close = close
        self.known = False
        """Whether a device or an operator has asked."""
        self.whole = True
        """Whether the latest request has come to its end."""
        self.last = False
        """Whether the connection ends after the answer to it."""

    def ask(self) -> None:
        """A request begins; who sends it is not known before `trust`."""
        self.rest()

    def trust(self) -> None:
        """A device or an operator has sent the request that is under way."""
        self.known, self.last = True, False
        self._connections.put(self, idle=False)

    def rest(self) -> None:
        """It waits for the next request. A stranger's place does not get any younger by asking."""
        if self.known:
            self._connections.put(self, idle=True)

    def leave(self) -> None:
        """The connection has ended."""
        self._connections.remove(self)


class Connections:
    """The connections of a server, of which there may be so many.

    At the bound a new one takes the place of another: of the stranger that has been here longest, whatever it does,
    as it may be one of many that only want to keep the others out; where there are none, of the device or operator that
    waits longest between two requests. Where every other has a request of one of these under way there is no place.

    Args:
        most: the bound.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        # Dictionaries keep their order: the first has waited longest.
        self._strangers: dict[Place, None] = {}
        self._idle: dict[Place, None] = {}
        self._busy: dict[Place, None] = {}

    def __len__(self) -> int:
        return len(self._strangers) + len(self._idle) + len(self._busy)

    def enter(self, close: Callable[[], object]) -> Place | None:
        """A place for a new connection; None when there is none."""
        if len(self) >= self.most:
            waiting = self._strangers or self._idle
            if not waiting:
                return None
            oldest = next(iter(waiting))
            self.remove(oldest)
            oldest.close()
        place = Place(self, close)
        self._strangers[place] = None
        return place

    def put(self, place: Place, *, idle: bool) -> None:
        """Notes what a connection does; nothing for one that has lost its place."""
        if self.remove(place):
            (self._idle if idle else self._busy)[place] = None

    def remove(self, place: Place) -> bool:
        """Frees a place; False when it was free."""
        found = [group for group in (self._strangers, self._idle, self._busy) if place in group]
        for group in found:
            del group[place]
        return bool(found)


class Acceptor:
    """Accepts connections up to the bound. asyncio's own accepting knows none, and complains at length without files.

    Args:
        listener: what to accept from.
        connections: the bound.
        make_protocol: what serves a connection, given its place.
        tls: with it, connections speak TLS.
    """

    def __init__(
        self,
        listener: socket.socket,
        connections: Connections,
        make_protocol: Callable[[Place], asyncio.Protocol],
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._listener, self._connections, self._make_protocol, self._tls = listener, connections, make_protocol, tls
        self._loop = asyncio.get_running_loop()
        self._tasks: set[asyncio.Task[None]] = set()
        self._lingering: set[socket.socket] = set()
        self._spare = os.open(os.devnull, os.O_RDONLY)
        self._told = -_QUIET_SECONDS
        self._closed = False

    def start(self) -> None:
        """Accepts from now on."""
        self._listener.setblocking(False)
        self._resume()

    def close(self) -> None:
        """Accepts nothing more, gives up handshakes, and closes the listener."""
        self._closed = True
        for task in self._tasks:
            task.cancel()
        self._loop.remove_reader(self._listener)
        self._listener.close()
        for connection in list(self._lingering):
            self._forget(connection)
        os.close(self._spare)

    def _resume(self) -> None:
        if not self._closed:
            self._loop.add_reader(self._listener, self._accept)

    def _accept(self) -> None:
        for _ in range(_ACCEPTED_AT_ONCE):
            try:
                connection = self._listener.accept()[0]
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                self._without_resources(error)
                return
            connection.setblocking(False)
            self._admit(connection)

    def _admit(self, connection: socket.socket) -> None:
        attempt: list[asyncio.Task[None]] = []
        # Until the protocol has it (with TLS: until the handshake is over), giving up the attempt closes it.
        place = self._connections.enter(lambda: attempt[0].cancel())
        if place is None:
            self._tell(
                f"{self._connections.most} connections are open, all with a device's request: more are turned away"
            )
            self._turn_away(connection)
            return
        task = self._loop.create_task(self._open(connection, place))
        attempt.append(task)
        self._tasks.add(task)
        task.add_done_callback(lambda done: self._opened(done, connection, place))

    async def _open(self, connection: socket.socket, place: Place) -> None:
        await self._loop.connect_accepted_socket(
            lambda: self._make_protocol(place),
            connection,
            ssl=self._tls,
            ssl_handshake_timeout=_HANDSHAKE_SECONDS if self._tls else None,
        )

    def _opened(self, task: asyncio.Task[None], connection: socket.socket, place: Place) -> None:
        self._tasks.discard(task)
        # An OSError: it ended, or spoke something else than TLS. Nobody is there to be told.
        error = None if task.cancelled() else task.exception()
        if task.cancelled() or error is not None:
            connection.close()
            place.leave()
        if error is not None and not isinstance(error, OSError):
            self._tell(f"a connection could not be opened: {type(error).__name__}: {error}")

    def _turn_away(self, connection: socket.socket) -> None:
        if self._tls is not None or len(self._lingering) >= _MOST_LINGERING:
            connection.close()
            return
        with contextlib.suppress(OSError):  # it hung up first: nobody is left to be told
            connection.send(_overloaded())
            connection.shutdown(socket.SHUT_WR)
        self._lingering.add(connection)
        self._loop.add_reader(connection, self._drop, connection)
        self._loop.call_later(_LINGER_SECONDS, self._forget, connection)

    def _drop(self, connection: socket.socket) -> None:
        try:
            if connection.recv(1 << 16):
                return
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            pass
        self._forget(connection)

    def _forget(self, connection: socket.socket) -> None:
        if connection in self._lingering:
            self._lingering.discard(connection)
            self._loop.remove_reader(connection)
            connection.close()

    def _without_resources(self, error: OSError) -> None:
        self._tell(f"a connection could not be accepted: {error.strerror or error}")
        # The one that waits would make the listener readable for ever: it is accepted with the spare file and closed.
        os.close(self._spare)
        with contextlib.suppress(OSError):  # it hung up first, which is what was wanted
            self._listener.accept()[0].close()
        try:
            self._spare = os.open(os.devnull, os.O_RDONLY)
        except OSError:
            self._spare = os.dup(self._listener.fileno())
        self._loop.remove_reader(self._listener)
        self._loop.call_later(_PAUSE_SECONDS, self._resume)

    def _tell(self, what: str) -> None:
        now = time.monotonic()
        if now - self._told >= _QUIET_SECONDS:
            self._told = now
            _log.warning("%s", what)


def _overloaded() -> bytes:
    body = json.dumps(error_body(Refusal.OVERLOADED, "The server has as many connections as it can hold.")).encode()
    head = (
        "HTTP/1.1 503 Service Unavailable",
        f"Content-Type: {CONTROL_TYPE}",
        f"Content-Length: {len(body)}",
        f"Retry-After: {random.randint(5, 20)}",
        "Connection: close",
    )
    return "\r\n".join(head).encode() + b"\r\n\r\n" + body
