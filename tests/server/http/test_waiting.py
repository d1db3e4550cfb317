from __future__ import annotations

import asyncio
import threading

from edgefl_server.http.waiting import Bell


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
