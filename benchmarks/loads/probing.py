"""A process beside the fleet's that asks a little all the time, and notes how long each answer took.

It is one of its own so that what the many devices cost their emulator is in no figure. Standard input ends it; then it
prints a JSON list of ``[kind, when it was asked, seconds]``, by the clock that all processes of a machine share.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time

from loads.clients import Device, connect, head

__all__ = ["main"]

_PAUSE_SECONDS = 0.01


async def _probe(port: int, population: str, invitation: str, admin: str) -> list[tuple[str, float, float]]:
    found: list[tuple[str, float, float]] = []
    device = Device(port, 0, population, "probe")
    assert (await device.enrol(invitation)).status in (200, 201)
    assert (await device.poll(0)).status == 204
    operator = await connect(port)
    ended = asyncio.create_task(asyncio.to_thread(sys.stdin.read))
    print("ready", flush=True)
    listing, nothing = head("GET", "/v1/runs", admin, 0), f"/v1/weights/{'0' * 64}"
    lease = f"/v1/tasks/unknown-{device.device}/lease"
    while not ended.done():
        for kind in ("poll", "weights", "lease", "operator"):
            began = time.monotonic()
            if kind == "poll":
                answer, expected = await device.poll(0), 204
            elif kind == "weights":
                answer, expected = await device.call("GET", nothing), 404
            elif kind == "lease":
                answer, expected = await device.call("POST", lease), 404
            else:
                answer, expected = await operator.ask(listing), 200
            assert answer.status == expected, (kind, answer)
            found.append((kind, began, answer.at - began))
            await asyncio.sleep(_PAUSE_SECONDS)
    return found


def main() -> None:
    """See above; arguments: port, population, invitation's token, operator's token."""
    port, population, invitation, admin = sys.argv[1:5]
    print(json.dumps(asyncio.run(_probe(int(port), population, invitation, admin))))


if __name__ == "__main__":
    main()
