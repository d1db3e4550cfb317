from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from typing import Any

import pytest

from edgefl.errors import StorageError
from edgefl_server.http.handing_out import HandingOut


class Looks:
    """Looks for tasks of what are numbers here; the first look waits until it may end."""

    def __init__(self) -> None:
        self.batches: list[list[Any]] = []
        self.begun, self.may_end = threading.Event(), threading.Event()

    def __call__(self, devices: Sequence[Any]) -> list[Any]:
        self.batches.append(list(devices))
        if len(self.batches) == 1:
            self.begun.set()
            assert self.may_end.wait(60)
        if 13 in devices:
            raise ValueError("not today")
        return [10 * device for device in devices]


def test_all_that_ask_at_once_or_while_others_are_looked_for_share_a_look() -> None:
    looks = Looks()

    async def main() -> list[Any]:
        handing = HandingOut(looks)
        first = [asyncio.create_task(handing.find(each)) for each in (1, 2)]
        await asyncio.to_thread(looks.begun.wait, 60)
        later = [asyncio.create_task(handing.find(each)) for each in (3, 4, 5)]
        await asyncio.sleep(0)
        looks.may_end.set()
        return await asyncio.gather(*first, *later)

    assert asyncio.run(main()) == [10, 20, 30, 40, 50]
    assert looks.batches == [[1, 2], [3, 4, 5]]


def test_a_look_is_for_a_bounded_number() -> None:
    looks = Looks()
    looks.may_end.set()

    async def main() -> list[Any]:
        handing = HandingOut(looks)
        return await asyncio.gather(*(handing.find(each) for each in range(100, 180)))

    assert asyncio.run(main()) == [10 * each for each in range(100, 180)]
    assert [len(batch) for batch in looks.batches] == [32, 32, 16]


def test_a_look_that_fails_and_a_request_that_is_gone_concern_nobody_else() -> None:
    looks = Looks()

    async def main() -> None:
        handing = HandingOut(looks)
        gone, stays = (asyncio.create_task(handing.find(each)) for each in (1, 2))
        await asyncio.to_thread(looks.begun.wait, 60)
        gone.cancel()
        looks.may_end.set()
        assert await stays == 20
        failed, found = await asyncio.gather(handing.find(13), handing.find(14), return_exceptions=True)
        assert isinstance(failed, ValueError)
        assert found == 140
        assert await handing.find(7) == 70
        with pytest.raises(asyncio.CancelledError):
            await gone

    asyncio.run(main())


def test_a_server_that_cannot_store_says_so_to_all_at_once() -> None:
    looked = []

    def look(devices: Sequence[Any]) -> list[Any]:
        looked.append(list(devices))
        raise StorageError("The disk is full.")

    async def main() -> None:
        handing = HandingOut(look)
        for found in await asyncio.gather(*map(handing.find, (1, 2, 3)), return_exceptions=True):
            assert isinstance(found, StorageError)

    asyncio.run(main())
    assert looked == [[1, 2, 3]]
