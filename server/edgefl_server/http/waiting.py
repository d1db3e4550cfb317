"""Requests that wait for work, without a thread each."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from enum import Enum
from itertools import islice

from edgefl_server.log_lines import Repeats

__all__ = ["Bell", "Call", "Outlook", "WaitingLines"]

_log = logging.getLogger(__name__)


class Call(Enum):
    """The ways in which a wait in line may end."""

    NONE = "nobody called"
    CHANGED = "something changed before the wait began"
    CALLED = "called: there may be a place, and whoever takes none passes the call on"


class Bell:
    """Wakes everything that waits, and for good when the server stops."""

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
        """Lets nothing wait from now on; may be called from any thread or signal handler."""
        self.stopping = True
        self.ring()

    def ticket(self) -> asyncio.Event:
        """The event that the next ring sets. Take it before looking for work: a ring in between is then not missed."""
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


_FRESH_SECONDS = 1.0
"""An outlook is believed for so long: a lease runs out without a ring."""


@dataclass(frozen=True)
class Outlook:
    """The work that there is for a population.

    Attributes:
        places: how many tasks could be handed out now.
        active: how many runs are not over.
        roots: root devices of these runs, for which there may be a task beside those that are counted.
    """

    places: int
    active: int
    roots: frozenset[str] = frozenset()


@dataclass(frozen=True)
class _Wait:
    """One that waits: whether it ends with the work, and the version at which it looked last."""

    until_idle: bool
    looked_at: int


@dataclass
class _Line:
    """The devices of one population that wait, first come first served."""

    version: int = 0
    outlook: tuple[int, float, asyncio.Future[Outlook]] | None = None
    waiting: OrderedDict[asyncio.Future[None], _Wait] = field(default_factory=OrderedDict)
    changed: bool = False
    passed_on: bool = False
    calling: asyncio.Task[None] | None = None


class WaitingLines:
    """Requests that wait for work, a line for each population.

    A ring wakes as many as there are places for, and root devices, which need none; and once a population's last run is
    over those that end with the work: all others wait for the next run. Whoever is called and does not take a place
    lets the next try (`pass_on`), until all have looked: a place that none of them may take waits for the next ring.
    So a thousand devices that wait cost nothing while there is no work, and one look each when they are called.

    Args:
        look: from a population's name to what there is for it.
        repeats: bounds what is logged when that fails: every ring looks again.
        clock: in seconds; never set.
    """

    def __init__(
        self,
        look: Callable[[str], Awaitable[Outlook]],
        repeats: Repeats,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._look, self._repeats, self._clock = look, repeats, clock
        self._loop: asyncio.AbstractEventLoop | None = None
        self._lines: dict[str, _Line] = {}
        self._waits: dict[str, asyncio.Future[None]] = {}
        self.stopping = False

    def attach(self) -> None:
        """Binds the lines to the running loop."""
        self._loop = asyncio.get_running_loop()

    def ring(self, population: str | None = None) -> None:
        """There may be work, for one population or for any, or a run may have ended; from any thread."""
        self._soon(self._ring, population)

    def stop(self) -> None:
        """Lets nothing wait from now on; may be called from any thread or signal handler."""
        self.stopping = True
        self._soon(self._wake_all)

    async def outlook(self, population: str) -> Outlook:
        """Says what there is for a population; looked up once for all that ask in a moment in which nothing rings."""
        line = self._line(population)
        if line.outlook is not None:
            version, looked_at, shared = line.outlook
            if version == line.version and (not shared.done() or self._clock() - looked_at < _FRESH_SECONDS):
                return await asyncio.shield(shared)
        found = asyncio.ensure_future(self._look(population))
        line.outlook = (line.version, self._clock(), found)
        try:
            return await asyncio.shield(found)
        except Exception:
            line.outlook = None
            raise

    def waiting(self) -> int:
        """The number of those that wait, in all lines."""
        return sum(len(line.waiting) for line in self._lines.values())

    def taken(self, population: str) -> None:
        """A task was handed out: if it may have been the last, the outlook is not believed any more."""
        line = self._line(population)
        if line.outlook is not None and _few(line.outlook[2]):
            line.outlook = None

    def ticket(self, population: str) -> int:
        """Take it before looking for work: a ring in between is then not missed."""
        return self._line(population).version

    async def wait(
        self, population: str, ticket: int, seconds: float, *, until_idle: bool = False, device: str | None = None
    ) -> Call:
        """Returns when this one is called, after some seconds, or when the same device begins another wait.

        Args:
            population: whose line.
            ticket: see `ticket`.
            seconds: at most.
            until_idle: it is also called when no run is active any more.
            device: who waits.
        """
        line = self._line(population)
        if line.version != ticket:
            return Call.CHANGED
        if self.stopping or seconds <= 0:
            return Call.NONE
        called = asyncio.get_running_loop().create_future()
        line.waiting[called] = _Wait(until_idle, ticket)
        if device is not None:
            if (older := self._waits.get(device)) is not None:
                older.cancel()
            self._waits[device] = called
        try:
            await asyncio.wait([called], timeout=seconds)
        except asyncio.CancelledError:
            if _was_called(called):
                self.pass_on(population)
            raise
        finally:
            line.waiting.pop(called, None)
            if device is not None and self._waits.get(device) is called:
                del self._waits[device]
        return Call.CALLED if _was_called(called) else Call.NONE

    def pass_on(self, population: str) -> None:
        """Whoever was called took no place: the next may, if there still is one."""
        line = self._line(population)
        line.outlook = None
        line.passed_on = True
        self._call(population, line)

    def _line(self, population: str) -> _Line:
        return self._lines.setdefault(population, _Line())

    def _soon(self, function: Callable[..., None], *arguments: object) -> None:
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(function, *arguments)

    def _ring(self, population: str | None) -> None:
        for name in [population] if population is not None else list(self._lines):
            line = self._line(name)
            line.version += 1
            line.changed = True
            self._call(name, line)

    def _call(self, population: str, line: _Line) -> None:
        if line.calling is None and line.waiting:
            line.calling = asyncio.get_running_loop().create_task(self._calls(population, line))

    async def _calls(self, population: str, line: _Line) -> None:
        try:
            while line.waiting and (line.changed or line.passed_on):
                changed, line.changed, line.passed_on = line.changed, False, False
                try:
                    found = await self.outlook(population)
                except Exception:  # whatever it is, the devices ask again when their wait is over
                    what = f"could not see whether there is work for {population}"
                    if self._repeats.first(what):
                        _log.exception("%s", what)
                    return
                if found.active == 0:
                    _wake(line, len(line.waiting), until_idle=True)
                else:
                    if changed:
                        self._wake_roots(line, found.roots)
                    _wake(line, found.places if changed else min(found.places, 1))
        finally:
            line.calling = None

    def _wake_roots(self, line: _Line, roots: frozenset[str]) -> None:
        for called in filter(None, map(self._waits.get, roots)):
            if line.waiting.pop(called, None) is not None and not called.done():
                called.set_result(None)

    def _wake_all(self) -> None:
        for line in self._lines.values():
            line.version += 1
            _wake(line, len(line.waiting))


def _wake(line: _Line, count: int, until_idle: bool = False) -> None:
    """Calls so many that have not looked since the last ring, the first first; ``until_idle``: all that end with it."""
    able = (
        called
        for called, wait in line.waiting.items()
        if not called.done() and (wait.until_idle if until_idle else wait.looked_at < line.version)
    )
    for called in list(islice(able, count)):
        del line.waiting[called]
        called.set_result(None)


def _was_called(wait: asyncio.Future[None]) -> bool:
    return wait.done() and not wait.cancelled()


def _few(outlook: asyncio.Future[Outlook]) -> bool:
    return outlook.done() and (outlook.exception() is not None or outlook.result().places <= 1)
