"""Hands out tasks to all that ask in a moment at once: each transaction waits for the disk, while the others wait."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from starlette.concurrency import run_in_threadpool

from edgefl_server.storage import DeviceRow, Found

__all__ = ["HandingOut"]

_AT_ONCE = 32
"""Nobody else can write meanwhile, and the first waits for the last."""


class HandingOut:
    """Looks for the tasks of devices, of all that asked while the last look went on together.

    Args:
        look: from devices to what was found for each; called in a thread.
    """

    def __init__(self, look: Callable[[Sequence[DeviceRow]], list[Found]]) -> None:
        self._look = look
        self._asking: list[tuple[DeviceRow, asyncio.Future[Found]]] = []
        self._handing: asyncio.Task[None] | None = None

    async def find(self, device: DeviceRow) -> Found:
        """What is found for a device; raises what the look raised for it and those who asked with it."""
        found: asyncio.Future[Found] = asyncio.get_running_loop().create_future()
        self._asking.append((device, found))
        if self._handing is None:
            self._handing = asyncio.create_task(self._hand_out())
        return await found

    async def _hand_out(self) -> None:
        try:
            while self._asking:
                asking, self._asking = self._asking[:_AT_ONCE], self._asking[_AT_ONCE:]
                try:
                    results = await run_in_threadpool(self._look, [device for device, _ in asking])
                except Exception as error:
                    for _, found in asking:
                        if not found.done():  # else the request is gone
                            found.set_exception(error)
                else:
                    for (_, found), result in zip(asking, results, strict=True):
                        if not found.done():
                            found.set_result(result)
        finally:
            self._handing = None
