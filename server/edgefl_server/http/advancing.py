"""The loop that closes rounds at their deadlines, folds what is closed, and tidies up."""

from __future__ import annotations

import asyncio
import contextlib
import math
import time

from starlette.concurrency import run_in_threadpool

from edgefl.errors import StorageError
from edgefl_server.http.context import Context
from edgefl_server.storage import (
    Refusals,
    ServerState,
    close_due_rounds,
    fail_damaged_runs,
    fold_round,
    pending_folds,
    prune_rows,
    settle_folds,
    sweep_outcomes,
    sweep_uploads,
)
from edgefl_server.storage.database import ReplacedDatabaseError
from edgefl_server.storage.troubles import STORE

__all__ = ["advance"]

_LOOK_SECONDS = 1.0
"""Deadlines are looked at so often."""
_FOLDS_AT_ONCE = 2
"""A large run does not hold up a small one; more would need the memory of as many models."""
_SERVED_SECONDS = 1.0
"""So long after a fold its devices have been handed the next tasks; short rounds share what is left to do."""
_FILES_SECONDS = 5.0
_KEEP_TIME_SECONDS = 60.0
_SWEEP_SECONDS = 60.0
_TIDY_SECONDS = 3600.0
_ADVANCE, _TIDY = "advance rounds", "tidy up"


async def advance(context: Context) -> None:
    """Advances the rounds of all runs until the server stops.

    The first pass also folds what a killed server left behind.
    """
    state = context.state
    folding: dict[str, asyncio.Task[None]] = {}
    places = asyncio.Semaphore(_FOLDS_AT_ONCE)
    folded = asyncio.Event()
    chores = Chores(state, context.refusals)

    async def fold(run: str, number: int) -> None:
        try:
            async with places:
                began = time.monotonic()
                if await run_in_threadpool(fold_round, state, run, number, context.work.ring):
                    context.counters.folds.note(time.monotonic() - began)
                else:
                    context.counters.folds_put_off += 1
        finally:
            del folding[run]
            folded.set()
            context.folding.ring()

    async def settle() -> None:
        while True:
            await folded.wait()
            await asyncio.sleep(_SERVED_SECONDS)
            folded.clear()
            await run_in_threadpool(_settle, state)

    settling = asyncio.create_task(settle())

    while not context.folding.stopping:
        ticket = context.folding.ticket()
        pause = _LOOK_SECONDS
        try:
            moved, pending = await run_in_threadpool(chores.look)
        except Exception as error:
            # Of the server as a whole, such as a database that cannot be read: no run could go on. That it is gone is
            # said to those who send something as well, in the same line.
            action = STORE if isinstance(error, ReplacedDatabaseError) else _ADVANCE
            state.troubles.note("", action, error, state.clock())
            pause = state.troubles.rest("", action, state.clock())
        else:
            state.troubles.clear("", _ADVANCE)
            context.advanced_at = time.monotonic()
            for run, number in pending:
                if run not in folding:
                    folding[run] = asyncio.create_task(fold(run, number))
            if moved:
                context.work.ring()
            pause = chores.rest()
        context.repeats.settle()
        await context.folding.wait(ticket, pause)
    await asyncio.gather(*folding.values())
    settling.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await settling
    await run_in_threadpool(_settle, state)
    with contextlib.suppress(StorageError):  # on a full disk; nobody is there any more to be told
        await run_in_threadpool(context.refusals.keep, state, now=True)
        await run_in_threadpool(state.seen.keep, state.database, now=True)


def _settle(state: ServerState) -> None:
    try:
        settle_folds(state)
    except Exception as error:
        state.troubles.note("", _TIDY, error, state.clock())


class Chores:
    """Does what is due now and then: looks at deadlines and files, keeps the time, deletes what is old enough."""

    def __init__(self, state: ServerState, refusals: Refusals) -> None:
        self._state, self._refusals = state, refusals
        self._kept_at = self._tidied_at = state.clock()
        self._looked_at = self._swept_at = self._closed_at = -math.inf

    def look(self) -> tuple[bool, list[tuple[str, int]]]:
        """Whether a run moved on, and the rounds to fold: these whenever asked, all else once a second."""
        state, now, moved = self._state, time.monotonic(), False
        state.database.require_in_place()
        if now - self._closed_at >= _LOOK_SECONDS:
            self._closed_at = now
            moved = close_due_rounds(state)
            moved = self.do() or moved
        return moved, pending_folds(state)

    def rest(self) -> float:
        """Seconds until deadlines are looked at again."""
        return max(0.0, self._closed_at + _LOOK_SECONDS - time.monotonic())

    def do(self) -> bool:
        """Does what is due; what is not possible, for example on a full disk, waits for the next time.

        Returns:
            True when a run ended.
        """
        state, now = self._state, self._state.clock()
        try:
            self._tidy(state, now)
        except Exception as error:
            state.troubles.note("", _TIDY, error, now)
        else:
            state.troubles.forget("", _TIDY, now)
        if now - self._looked_at < _FILES_SECONDS:
            return False
        self._looked_at = now
        return fail_damaged_runs(state)

    def _tidy(self, state: ServerState, now: float) -> None:
        if now - self._swept_at >= _SWEEP_SECONDS:
            self._swept_at = now
            sweep_uploads(state)
            self._refusals.keep(state)
            state.seen.keep(state.database)
        if now - self._kept_at >= _KEEP_TIME_SECONDS:
            self._kept_at = now
            state.keep_time()
            state.keep_generation()
            state.troubles.forget("", STORE, now)
        # Who wants nothing kept has it deleted as soon as it is not needed.
        if now - self._tidied_at >= min(_TIDY_SECONDS, max(_LOOK_SECONDS, state.keep_seconds)):
            self._tidied_at = now
            sweep_outcomes(state, starting=False)
            prune_rows(state)
