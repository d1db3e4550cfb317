from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from fastapi import FastAPI

from edgefl.errors import StorageError
from edgefl_server.http.connections import Connections, Place
from fake_device import Identity

from .conftest import ADMIN, Api

CLOSE = (b"connection", b"close")


def place(connections: Connections) -> Place:
    entered = connections.enter(lambda: None)
    assert entered is not None
    return entered


def ask(
    app: Any, method: str, path: str, headers: dict[str, str], mine: Place | None = None, body: bytes | None = None
) -> tuple[int, list[tuple[bytes, bytes]], dict[str, Any]]:
    """One request of a connection; without a body it must be answered before one is read."""

    async def scenario() -> list[dict[str, Any]]:
        sent: list[dict[str, Any]] = []

        async def receive() -> dict[str, Any]:
            assert body is not None, "the body was read"
            return {"type": "http.request", "body": body, "more_body": False}

        async def send(message: dict[str, Any]) -> None:
            sent.append(message)

        named = {"Content-Type": "application/json", **headers}
        scope = {
            "type": "http",
            "method": method,
            "path": path,
            "query_string": b"",
            "headers": [(name.lower().encode(), value.encode()) for name, value in named.items()],
            "state": {} if mine is None else {"place": mine},
        }
        await app(scope, receive, send)
        return sent

    start, *parts = asyncio.run(asyncio.wait_for(scenario(), 30))
    return start["status"], start["headers"], json.loads(b"".join(part["body"] for part in parts) or b"null")


@pytest.mark.parametrize("token", [None, "x", Identity.number(9).authorization["Authorization"], "Bearer " + "a" * 43])
def test_every_call_answers_a_stranger_before_it_reads_and_ends_the_connection(api: Api, token: str | None) -> None:
    app = api.client.app
    assert isinstance(app, FastAPI)
    calls = [(method.upper(), path) for path, methods in app.openapi()["paths"].items() for method in methods]
    assert ("GET", "/healthz") in calls
    calls = [each for each in calls if each[1] not in ("/healthz", "/readyz")]
    assert len(calls) == 37
    headers = {"Content-Length": "60000", **({} if token is None else {"Authorization": token})}
    for method, path in calls:
        status, answered, body = ask(app, method, path.replace("{", "").replace("}", ""), headers)
        assert (status, body["error"]["code"]) in {(401, "unknown_device"), (401, "wrong_token")}, path
        assert CLOSE in answered


def test_credentials_that_have_not_even_the_form_are_not_looked_up(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    async def look_up(*_: object, **__: object) -> None:
        raise AssertionError("a thread was used")

    monkeypatch.setattr("edgefl_server.http.context.run_sync", look_up)
    identity = Identity.number(0)
    for token in ("", "x", f"{identity.device}.{identity.secret[:-1]}", f"{identity.device}{identity.secret}"):
        headers = {"Authorization": f"Bearer {token}"}
        for method, path in (("POST", "/v1/tasks/next"), ("POST", "/v1/devices"), ("GET", "/v1/runs")):
            assert ask(api.client.app, method, path, headers)[0] == 401


def test_a_place_is_kept_for_devices_and_operators_only(api: Api) -> None:
    device, connections = api.device(0), Connections(9)
    places = [place(connections) for _ in range(5)]
    app, poll = api.client.app, ("POST", "/v1/tasks/next")
    assert ask(app, *poll, device, places[0], b'{"wait": 0}')[0] == 204
    assert ask(app, "GET", "/v1/runs", ADMIN, places[1], b"")[0] == 200
    assert ask(app, *poll, Identity.number(9).authorization, places[2])[0] == 401
    assert ask(app, "GET", "/openapi.json", {}, places[3], b"")[0] == 200
    enrolment = {"device_id": Identity.number(1).device, "secret_hash": Identity.number(1).secret_hash}
    body = json.dumps({**enrolment, "population": "people"}).encode()
    headers = {"Authorization": f"Bearer {api.fleet.token}"}
    assert ask(app, "POST", "/v1/devices", headers, places[4], body)[0] == 201
    assert list(connections._busy) == places[:2]
    assert list(connections._strangers) == places[2:]
    assert [each.last for each in places] == [False, False, True, True, False]


def test_a_stranger_that_is_still_sending_is_not_told_that_its_connection_ends(api: Api) -> None:
    mine = place(Connections(9))
    mine.whole = False
    status, headers, _ = ask(api.client.app, "POST", "/v1/devices", {"Content-Length": "9"}, mine)
    assert (status, CLOSE in headers, mine.last) == (401, False, True)


@pytest.mark.parametrize(("method", "path", "status"), [("GET", "/nothing", 404), ("PUT", "/openapi.json", 405)])
def test_a_stranger_who_asks_for_nothing_that_there_is_is_let_go(api: Api, method: str, path: str, status: int) -> None:
    answered, headers, _ = ask(api.client.app, method, path, {}, None, b"")
    assert (answered, CLOSE in headers) == (status, True)


def test_a_device_that_was_unknown_is_known_as_soon_as_it_has_enrolled(api: Api) -> None:
    headers = Identity.number(0).authorization
    assert api.client.post("/v1/tasks/next", headers=headers).status_code == 401
    api.device(0)
    assert api.client.post("/v1/tasks/next", headers=headers).status_code == 204


def test_a_database_that_cannot_be_read_is_no_reason_to_forget_a_device(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise StorageError("the disk is gone")

    monkeypatch.setattr("edgefl_server.http.admission.authenticate", broken)
    answer = api.client.post("/v1/tasks/next", headers=api.device(0))
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "storage_failed")
