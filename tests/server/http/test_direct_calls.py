from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from fastapi.routing import APIRoute
from fastapi.testclient import TestClient

from edgefl.hashing import sha256
from edgefl.wire.calls import DIGEST, LENGTH, OFFSET
from edgefl.wire.messages import Task
from edgefl_server.http import create_app
from edgefl_server.http.direct_calls import DirectCalls

from .conftest import Api, code


@pytest.fixture
def long_way(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The paths that FastAPI was asked for."""
    asked: list[str] = []
    handle = APIRoute.handle

    async def noted(self: APIRoute, scope: Any, receive: Any, send: Any) -> None:
        asked.append(scope["path"])
        await handle(self, scope, receive, send)

    monkeypatch.setattr(APIRoute, "handle", noted)
    return asked


def announcing(message: bytes, offset: int = 0) -> dict[str, str]:
    return {DIGEST: sha256(message), LENGTH: str(len(message)), OFFSET: str(offset)}


def test_no_call_of_a_round_goes_through_fastapi(api: Api, long_way: list[str]) -> None:
    me = api.device(0)
    run = api.create_run(target=1)["run"]
    long_way.clear()
    task = api.task(me)
    assert api.client.get(f"/v1/models/{task.model_hash}", headers=me).status_code == 200
    assert api.client.get(f"/v1/weights/{task.base_weights_hash}", headers=me).status_code == 200
    assert api.client.post(f"/v1/tasks/{task.task_id}/lease", headers=me).json()["lease_seconds"] > 0
    message = api.fleet.outcome(task).encode()
    sent = api.client.put(f"/v1/tasks/{task.task_id}/outcome", content=message, headers=me | announcing(message))
    assert (sent.status_code, sent.json()) == (202, {"task_id": task.task_id})
    assert long_way == []
    assert api.status(run)["history"][0]["state"] in ("folding", "done")
    assert long_way == [f"/v1/runs/{run}"]


def calls(task: Task) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Calls in the usual form and in others, most of them wrong."""
    for path in (task.model_hash, "0" * 64, "0" * 63, "../secret", "0" * 64 + "%0A"):
        yield "GET", f"/v1/models/{path}", {}
        yield "HEAD", f"/v1/weights/{path}", {}
        yield "POST", f"/v1/weights/{path}", {}
    for path in (task.task_id, "no-task", "-bad", "x" * 200, "a b"):
        yield "POST", f"/v1/tasks/{path}/lease", {}
        yield "PUT", f"/v1/tasks/{path}/lease", {}
    for body in (
        b"",
        b"{",
        b"[]",
        b"7",
        b'{"wait": -1}',
        b'{"wait": NaN}',
        b'{"remembers": [7]}',
        b"[" * 9000,
        b"\xff",
    ):
        for kind in ("application/json", "application/json; charset=utf-8", "text/plain", ""):
            yield "POST", "/v1/tasks/next", {"content": body, "headers": {"Content-Type": kind}}
    good, put = announcing(b"message"), f"/v1/tasks/{task.task_id}/outcome"
    for change in (
        {},
        {DIGEST: "x"},
        {LENGTH: "0"},
        {LENGTH: "-1"},
        {LENGTH: "1e3"},
        {LENGTH: "9" * 30},
        {OFFSET: "8"},
        {OFFSET: "x"},
        {OFFSET: "3"},
    ):
        yield "PUT", put, {"content": b"message", "headers": good | change}
    yield "PUT", put, {"content": b"message", "headers": {DIGEST: good[DIGEST]}}


def test_the_short_way_and_fastapi_give_the_same_answers(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    me = api.device(0)
    api.create_run(target=1)
    task = api.task(me)

    def answers() -> list[tuple[str, int, bytes, str | None]]:
        found = []
        for method, path, more in calls(task):
            headers = me | more.get("headers", {})
            answer = api.client.request(method, path, content=more.get("content"), headers=headers)
            found.append(
                (f"{method} {path} {more}", answer.status_code, answer.content, answer.headers.get("Content-Type"))
            )
        return found

    short = answers()
    assert {status for _, status, _, _ in short} > {200, 404, 405, 409, 422}
    monkeypatch.setattr(DirectCalls, "_poll", lambda *_: None)
    monkeypatch.setattr(DirectCalls, "_call", lambda *_: None)
    for one, other in zip(short, answers(), strict=True):
        assert one == other


def test_a_fault_of_the_server_is_answered_as_every_error_is_and_raised_again(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    me = api.device(0)
    task_id = "some-task"

    def fail(*_: object) -> None:
        raise RuntimeError("a fault")

    monkeypatch.setattr("edgefl_server.http.device_routes.renew_lease", fail)
    answer = api.client.post(f"/v1/tasks/{task_id}/lease", headers=me)
    assert (answer.status_code, code(answer)) == (500, "internal")
    app = create_app(api.fleet.state, "operators-token")
    with TestClient(app) as loud, pytest.raises(RuntimeError, match="a fault"):
        loud.post(f"/v1/tasks/{task_id}/lease", headers=me)
