"""Looks now and then whether there is something that an operator should know, and sends it."""

from __future__ import annotations

import asyncio
import time

from starlette.concurrency import run_in_threadpool

from edgefl_server.dates import iso_date
from edgefl_server.http.alarms import Alarms, Observed, ObservedRun
from edgefl_server.http.context import Context
from edgefl_server.http.webhooks import Webhook, post
from edgefl_server.storage import free_bytes, server_figures

__all__ = ["raise_alarms", "see"]

_LOOK_SECONDS = 15.0
_ALARM = "look for alarms"


def see(context: Context) -> Observed:
    """Reads what alarms are about; called in a thread.

    Raises:
        StorageError, OSError: the database or the disk cannot be read.
    """
    figures = server_figures(context.state)
    return Observed(
        runs=tuple(
            ObservedRun(each.run, each.name, (each.round, each.accepted))
            for each in figures.open_runs
            if each.state == "active"
        ),
        devices=sum(figures.devices.values()),
        called_at=context.state.seen.latest_at,
        accepted=sum(context.counters.outcomes.values()),
        refused=dict(context.counters.refused),
        free_bytes=free_bytes(context.state),
    )


async def raise_alarms(context: Context, url: str) -> None:
    """Does so until it is cancelled.

    Args:
        context: the server.
        url: where alarms go.
    """
    webhook, alarms, state = Webhook(post(url)), Alarms(), context.state
    sending = asyncio.create_task(webhook.run())
    try:
        while True:
            try:
                seen = await run_in_threadpool(see, context)
            except Exception as error:  # whatever it is, the next look may see more
                state.troubles.note("", _ALARM, error, state.clock())
            else:
                state.troubles.clear("", _ALARM)
                for each in alarms.look(seen, time.monotonic()):
                    at = iso_date(state.date())
                    about = {"run": each.about} if each.about else {}
                    webhook.put({"alarm": each.alarm, "state": each.state, **about, "message": each.message, "at": at})
            await asyncio.sleep(_LOOK_SECONDS)
    finally:
        sending.cancel()
