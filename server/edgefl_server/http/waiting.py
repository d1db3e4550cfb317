"""Requests that wait for work, without a thread each."""

from __future__ import annotations

import asyncio

__all__ = ["WorkBell"]


class WorkBell:
    """Wakes everything that waits when there may be new work, and for good when the server stops."""

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._next = asyncio.Event()
        self.stopping = False

    def attach(self) -> None:
        """Binds the bell to the running loop."""
        self._loop = asyncio.get_running_loop()

    def ring(self) -> None:
        """Wakes all that wait now; from any thread."""
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._wake)

    def stop(self) -> None:
        """From now on nothing waits; from any thread or signal handler."""
        self.stopping = True
        self.ring()

    def ticket(self) -> asyncio.Event:
        """What the next ring sets. Take it before looking for work: a ring in between is then not missed."""
        return self._next

    async def wait(self, ticket: asyncio.Event, seconds: float) -> None:
        """Returns at the ring or after some seconds."""
        if self.stopping or seconds <= 0:
            return
        try:
            await asyncio.wait_for(ticket.wait(), seconds)
        except asyncio.TimeoutError:
            return

    def _wake(self) -> None:
        self._next.set()
        self._next = asyncio.Event()
