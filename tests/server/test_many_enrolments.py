"""A thousand devices that come at the same moment with an invitation for ten."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

from fake_device import Identity
from server_process import ServerProcess, free_port

MANY = 1000


def test_a_thousand_connections_at_once_with_an_invitation_for_ten_are_ten_devices(tmp_path: Path) -> None:
    server = ServerProcess(tmp_path / "state", free_port(), ("--max-connections", "2000"))
    server.start()
    try:
        token = str(server.call("server", "invite", "--population", "people", "--uses", "10")["token"])
        answers = asyncio.run(_enrol_all(server.port, token))
        (invitation,) = server.call("server", "invitations", "list")["invitations"]  # type: ignore[misc]
    finally:
        server.stop()
    assert answers.count((201, "")) == 10
    assert answers.count((403, "invitation_over")) == MANY - 10
    assert (invitation["used"], invitation["state"]) == (10, "used up")


async def _enrol_all(port: int, token: str) -> list[tuple[int, str]]:
    together = asyncio.Event()
    waiting = [asyncio.create_task(_enrol(port, token, number, together)) for number in range(MANY)]
    await asyncio.sleep(0)
    together.set()
    return list(await asyncio.gather(*waiting))


async def _enrol(port: int, token: str, number: int, together: asyncio.Event) -> tuple[int, str]:
    me = Identity.number(number)
    body = json.dumps({"device_id": me.device, "secret_hash": me.secret_hash, "population": "people"}).encode()
    head = (
        f"POST /v1/devices HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\nConnection: close\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    await together.wait()
    while True:
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(head.encode() + body)
            answer = await reader.read()
            writer.close()
        except OSError:
            continue  # the kernel's queue was full: as a device does, it tries again
        if not answer:
            continue
        status = int(answer.split()[1])
        if status >= 500:
            continue
        document = json.loads(answer.partition(b"\r\n\r\n")[2])
        return status, document.get("error", {}).get("code", "")
