from __future__ import annotations

import asyncio
import logging
import threading

from edgefl_server.http.waiting import Bell, Call, Outlook, WaitingLines
from edgefl_server.log_lines import Repeats


def test_a_ring_between_the_ticket_and_the_wait_is_not_missed() -> None:
    async def scenario() -> None:
        bell = Bell()
        bell.attach()
        ticket = bell.ticket()
        bell.ring()
        await asyncio.wait_for(bell.wait(ticket, 1000), 10)

    asyncio.run(scenario())


def test_a_ring_from_a_thread_wakes_all_that_wait() -> None:
    async def scenario() -> None:
        bell = Bell()
        bell.attach()
        waiting = [asyncio.create_task(bell.wait(bell.ticket(), 1000)) for _ in range(5)]
        await asyncio.sleep(0)
        threading.Thread(target=bell.ring).start()
        await asyncio.wait_for(asyncio.gather(*waiting), 10)

    asyncio.run(scenario())


def test_after_the_stop_nothing_waits() -> None:
    async def scenario() -> None:
        bell = Bell()
        bell.attach()
        waiting = asyncio.create_task(bell.wait(bell.ticket(), 1000))
        await asyncio.sleep(0)
        bell.stop()
        await asyncio.wait_for(waiting, 10)
        await asyncio.wait_for(bell.wait(bell.ticket(), 1000), 10)

    asyncio.run(scenario())


def test_a_wait_without_a_ring_ends_by_itself() -> None:
    async def scenario() -> None:
        bell = Bell()
        bell.attach()
        await asyncio.wait_for(bell.wait(bell.ticket(), 0.01), 10)

    asyncio.run(scenario())


def test_a_bell_that_was_never_attached_rings_in_silence() -> None:
    Bell().ring()


class Devices:
    """Some that wait in one line, and how many places there are."""

    def __init__(self, count: int, places: int = 0, active: int = 1, until_idle: tuple[int, ...] = ()) -> None:
        self.places, self.active, self.looks, self.now = places, active, 0, 0.0
        self.lines = WaitingLines(self.look, Repeats(logging.getLogger(__name__)), lambda: self.now)
        self.lines.attach()
        ticket = self.lines.ticket("people")
        self.waiting = [
            asyncio.create_task(self.lines.wait("people", ticket, 1000, until_idle=index in until_idle))
            for index in range(count)
        ]

    async def look(self, population: str) -> Outlook:
        self.looks += 1
        await asyncio.sleep(0)
        if self.places < 0:
            raise OSError("the database cannot be read")
        return Outlook(self.places if population == "people" else 0, self.active)

    async def ring(self, population: str | None = "people") -> list[int]:
        """Rings and tells which of them are called."""
        self.lines.ring(population)
        return await self.called()

    async def called(self) -> list[int]:
        for _ in range(20):
            await asyncio.sleep(0)
        return [index for index, each in enumerate(self.waiting) if each.done()]


def test_a_ring_calls_as_many_as_there_are_places_the_first_first() -> None:
    async def scenario() -> None:
        devices = Devices(5, places=2)
        await asyncio.sleep(0)
        assert await devices.ring() == [0, 1]
        assert devices.waiting[0].result() is Call.CALLED
        devices.places = 0
        assert await devices.ring() == [0, 1]
        devices.places = 1
        assert await devices.ring(None) == [0, 1, 2]

    asyncio.run(scenario())


def test_a_ring_calls_a_root_device_wherever_it_stands_and_whether_there_are_places_or_not() -> None:
    async def scenario() -> None:
        lines = WaitingLines(look, Repeats(logging.getLogger(__name__)))
        lines.attach()
        ticket = lines.ticket("people")
        waiting = [asyncio.create_task(lines.wait("people", ticket, 1000, device=name)) for name in ("a", "b", "root")]
        await asyncio.sleep(0)
        lines.ring("people")
        for _ in range(20):
            await asyncio.sleep(0)
        assert [each.done() for each in waiting] == [False, False, True]
        assert waiting[2].result() is Call.CALLED
        for each in waiting[:2]:
            each.cancel()

    async def look(population: str) -> Outlook:
        return Outlook(0, 1, frozenset({"root", "one that does not wait"}))

    asyncio.run(scenario())


def test_whoever_takes_no_place_lets_the_next_try_while_there_is_one() -> None:
    async def scenario() -> None:
        devices = Devices(4, places=1)
        await asyncio.sleep(0)
        assert await devices.ring() == [0]
        devices.lines.pass_on("people")
        assert await devices.called() == [0, 1]
        devices.places = 0
        devices.lines.pass_on("people")
        assert await devices.called() == [0, 1]

    asyncio.run(scenario())


def test_a_place_that_nobody_may_take_is_looked_at_once_by_each_until_something_rings() -> None:
    async def scenario() -> None:
        devices = Devices(3, places=1)

        async def in_line() -> None:
            while True:
                if await devices.lines.wait("people", devices.lines.ticket("people"), 1000) is Call.CALLED:
                    calls.append(devices.looks)
                    devices.lines.pass_on("people")

        calls: list[int] = []
        waiting = [asyncio.create_task(in_line()) for _ in range(3)]
        for each in devices.waiting:
            each.cancel()
        for rings in (1, 2):
            await devices.ring()
            for _ in range(200):
                await asyncio.sleep(0)
            assert len(calls) == 3 * rings
        for each in waiting:
            each.cancel()

    asyncio.run(scenario())


def test_one_that_goes_away_when_it_is_called_lets_the_next_try() -> None:
    async def scenario() -> None:
        devices = Devices(2, places=1)
        await asyncio.sleep(0)
        future = next(iter(devices.lines._lines["people"].waiting))
        future.add_done_callback(lambda _: devices.waiting[0].cancel())
        assert await devices.ring() == [0, 1]
        assert devices.waiting[0].cancelled()

    asyncio.run(scenario())


def test_those_that_end_with_the_work_are_called_once_their_last_run_is_over_and_nobody_else() -> None:
    async def scenario() -> None:
        devices = Devices(4, active=0, until_idle=(1, 3))
        other = asyncio.create_task(devices.lines.wait("others", devices.lines.ticket("others"), 1000))
        await asyncio.sleep(0)
        assert await devices.ring() == [1, 3]
        assert not other.done()
        devices.active, devices.places = 1, 1
        assert await devices.ring() == [0, 1, 3]
        devices.lines.stop()
        assert await other is Call.CALLED
        assert await devices.lines.wait("others", devices.lines.ticket("others"), 1000) is Call.NONE

    asyncio.run(scenario())


def test_a_ring_between_the_ticket_and_the_place_in_line_is_not_missed() -> None:
    async def scenario() -> None:
        devices = Devices(0)
        ticket = devices.lines.ticket("people")
        await devices.ring()
        assert await devices.lines.wait("people", ticket, 1000) is Call.CHANGED
        assert await devices.lines.wait("people", devices.lines.ticket("people"), 0.01) is Call.NONE

    asyncio.run(scenario())


def test_a_thousand_that_ask_at_once_cost_one_look_until_something_rings() -> None:
    async def scenario() -> None:
        devices = Devices(0)
        await asyncio.gather(*(devices.lines.outlook("people") for _ in range(1000)))
        assert devices.looks == 1
        await devices.ring()
        await asyncio.gather(*(devices.lines.outlook("people") for _ in range(1000)))
        assert devices.looks == 2
        devices.now += 1.5  # a lease may have run out
        await devices.lines.outlook("people")
        assert devices.looks == 3

    asyncio.run(scenario())


def test_a_look_that_fails_is_tried_again() -> None:
    async def scenario() -> None:
        devices = Devices(1, places=1)
        await asyncio.sleep(0)
        devices.places = -1
        assert await devices.ring() == []
        devices.places, devices.now = 1, 2.0
        assert await devices.ring() == [0]

    asyncio.run(scenario())


def test_a_newer_wait_of_a_device_ends_the_older_and_takes_no_call_from_it() -> None:
    async def scenario() -> None:
        lines = Devices(0, places=1).lines
        ticket = lines.ticket("people")
        waits = []
        for _ in range(3):
            waits.append(asyncio.create_task(lines.wait("people", ticket, 1000, device="a")))
            await asyncio.sleep(0)
        other = asyncio.create_task(lines.wait("people", ticket, 1000, device="b"))
        assert await asyncio.wait_for(asyncio.gather(*waits[:2]), 10) == [Call.NONE, Call.NONE]
        lines.ring("people")
        assert await asyncio.wait_for(waits[2], 10) is Call.CALLED
        assert not other.done()
        lines.stop()
        assert await asyncio.wait_for(other, 10) is Call.CALLED
        assert lines._waits == {}

    asyncio.run(scenario())
