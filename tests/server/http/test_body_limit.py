from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from edgefl_server.http.body_limit import MAX_CONTROL_BYTES, BodyLimit


async def application(scope: dict[str, Any], receive: Any, send: Any) -> None:
    got, more = 0, True
    while more:
        message = await receive()
        got, more = got + len(message["body"]), message["more_body"]
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": json.dumps(got).encode()})


def ask(
    pauses: list[float],
    *,
    size: int = 10,
    headers: int = 0,
    value: bytes = b"y",
    limit: int = 1000,
    **settings: float,
) -> tuple[int, Any]:
    """A body in pieces, each after a pause of the client."""

    async def scenario() -> tuple[int, Any]:
        sent: list[dict[str, Any]] = []
        left = list(pauses)

        async def receive() -> dict[str, Any]:
            await asyncio.sleep(left.pop(0))
            return {"type": "http.request", "body": bytes(size), "more_body": bool(left)}

        async def send(message: dict[str, Any]) -> None:
            sent.append(message)

        scope = {"type": "http", "method": "PUT", "path": "/", "headers": [(b"x", value)] * headers}
        await BodyLimit(application, lambda method, path: limit, **settings)(scope, receive, send)  # type: ignore[arg-type]
        return sent[0]["status"], json.loads(sent[1]["body"])

    return asyncio.run(asyncio.wait_for(scenario(), 30))


def test_a_body_in_time_is_passed_on() -> None:
    assert ask([0, 0, 0]) == (200, 30)


def test_a_sender_that_goes_silent_is_cut_off() -> None:
    status, answer = ask([0, 1000], silence_seconds=0.05)
    assert (status, answer["error"]["code"]) == (408, "too_slow")


def test_a_sender_that_is_never_silent_but_never_ends_is_cut_off() -> None:
    status, answer = ask([0.01] * 1000, size=1, grace_seconds=0.1)
    assert (status, answer["error"]["code"]) == (408, "too_slow")


def test_a_long_body_may_take_longer() -> None:
    # At the slowest rate 100 bytes earn 50 ms: 450 ms beside the grace.
    assert ask([0.06] * 9, size=100, grace_seconds=0.3) == (200, 900)


def test_a_few_words_have_less_time_than_an_outcome(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgefl_server.http.body_limit._CONTROL_GRACE_SECONDS", 0.1)
    assert ask([0.01] * 1000, size=1)[0] == 408
    assert ask([0.01] * 20, size=1, limit=MAX_CONTROL_BYTES + 1) == (200, 20)


def test_more_than_the_limit_is_too_large() -> None:
    status, answer = ask([0] * 11, size=100)
    assert (status, answer["error"]["code"]) == (413, "too_large")


def test_many_headers_are_too_large() -> None:
    status, answer = ask([0], headers=101)
    assert (status, answer["error"]["code"]) == (431, "too_large")


def test_a_long_header_is_too_large_also_when_it_came_at_once() -> None:
    assert ask([0], headers=1, value=bytes(16_000)) == (200, 10)
    for headers, size in ((1, 30_000), (90, 200)):
        status, answer = ask([0], headers=headers, value=bytes(size))
        assert (status, answer["error"]["code"]) == (431, "too_large")
