"""Hands out tasks to all that ask in a moment at once: each transaction waits for the disk, while the others wait."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import TypeAlias

from starlette.concurrency import run_in_threadpool

from edgefl.errors import StorageError
from edgefl_server.storage import DeviceRow, Found

__all__ = ["HandingOut"]

_Asking: TypeAlias = "tuple[DeviceRow, asyncio.Future[Found]]"

_AT_ONCE = 32
"""Nobody else can write meanwhile, and the first waits for the last."""


class HandingOut:
    """Looks for the tasks of devices, of all that asked while the last look went on together.

    Args:
        look: from devices to what was found for each; called in a thread.
    """

    def __init__(self, look: Callable[[Sequence[DeviceRow]], list[Found]]) -> None:
        self._look = look
        self._asking: list[_Asking] = []
        self._handing: asyncio.Task[None] | None = None

    async def find(self, device: DeviceRow) -> Found:
        """Returns what is found for a device; raises what the look for it raised."""
        found: asyncio.Future[Found] = asyncio.get_running_loop().create_future()
        self._asking.append((device, found))
        if self._handing is None:
            self._handing = asyncio.create_task(self._hand_out())
        return await found

    async def _hand_out(self) -> None:
        try:
            while self._asking:
                asking, self._asking = self._asking[:_AT_ONCE], self._asking[_AT_ONCE:]
                await self._answer(asking)
        finally:
            self._handing = None

    async def _answer(self, asking: Sequence[_Asking]) -> None:
        try:
            results = await run_in_threadpool(self._look, [device for device, _ in asking])
        except Exception as error:
            if len(asking) > 1 and not isinstance(error, StorageError):
                # It may be about one of them, who is not to take the others' tasks from them.
                for each in asking:
                    await self._answer([each])
                return
            for _, found in asking:
                if not found.done():  # else the request is gone
                    found.set_exception(error)
        else:
            for (_, found), result in zip(asking, results, strict=True):
                if not found.done():
                    found.set_result(result)
