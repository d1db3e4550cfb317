"""Outcomes that arrive in pieces."""

from __future__ import annotations

import asyncio
import hashlib
import json
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from edgefl.errors import StorageError
from edgefl.wire.messages import CONTROL_TYPE
from edgefl_server.http import create_app
from edgefl_server.http.receiving import Receiving
from edgefl_server.storage import stop_run
from edgefl_server.storage.uploads import Upload
from fake_device import Identity
from model_files import make_model_file

from .conftest import ADMIN, Api, code

DISCONNECT = {"type": "http.disconnect"}


def announce(data: bytes, offset: int = 0) -> dict[str, str]:
    digest = hashlib.sha256(data).hexdigest()
    return {"EdgeFL-Digest": digest, "EdgeFL-Length": str(len(data)), "EdgeFL-Offset": str(offset)}


class Case:
    """One device with a task and the bytes of its outcome."""

    def __init__(self, api: Api, **settings: object) -> None:
        self.api, self.device, self.run = api, api.device(0), api.create_run(**settings)["run"]
        self.task = api.task(self.device)
        self.path = f"/v1/tasks/{self.task.task_id}/outcome"
        self.data = api.fleet.outcome(self.task).encode()
        self.folder = api.fleet.state.folder / "uploads"

    def received(self, data: bytes | None = None) -> Any:
        digest = hashlib.sha256(self.data if data is None else data).hexdigest()
        return self.api.client.get(f"{self.path}?digest={digest}", headers=self.device)

    def put(self, body: bytes, headers: dict[str, str]) -> Any:
        return self.api.client.put(self.path, content=body, headers={**self.device, **headers})

    def files(self) -> list[Path]:
        return list(self.folder.iterdir())

    def stream(self, receive: Callable[[], Awaitable[dict[str, Any]]], headers: dict[str, str]) -> tuple[int, Any]:
        """A PUT whose body the test hands over itself."""
        return self.api.client.portal.call(self.streamed, receive, headers)  # type: ignore[union-attr]

    async def streamed(
        self, receive: Callable[[], Awaitable[dict[str, Any]]], headers: dict[str, str]
    ) -> tuple[int, Any]:
        sent: list[dict[str, Any]] = []

        async def send(message: dict[str, Any]) -> None:
            sent.append(message)

        pairs = [(name.lower().encode(), value.encode()) for name, value in {**self.device, **headers}.items()]
        scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": "PUT",
            "scheme": "http",
            "path": self.path,
            "raw_path": self.path.encode(),
            "query_string": b"",
            "root_path": "",
            "headers": pairs,
            "client": None,
            "server": None,
            "state": {},
        }
        await self.api.client.app(scope, receive, send)  # type: ignore[arg-type]
        body = b"".join(each.get("body", b"") for each in sent)
        return sent[0]["status"], json.loads(body)


def pieces(*bodies: bytes, then: dict[str, Any] | None = None) -> Callable[[], Awaitable[dict[str, Any]]]:
    """A body in pieces, and what comes instead of its end."""
    messages = [{"type": "http.request", "body": body, "more_body": True} for body in bodies]
    if then is None:
        messages[-1]["more_body"] = False
    messages.append(then or DISCONNECT)

    async def receive() -> dict[str, Any]:
        return messages.pop(0) if len(messages) > 1 else messages[0]

    return receive


@pytest.fixture
def case(api: Api) -> Case:
    return Case(api)


def test_an_announced_outcome_can_come_at_once(case: Case) -> None:
    assert case.put(case.data, announce(case.data)).status_code == 202
    assert case.received().json() == {"received": len(case.data)}
    assert case.files() == []


def test_an_upload_that_broke_off_goes_on_where_it_stopped(case: Case) -> None:
    assert case.received().json() == {"received": 0}
    case.stream(pieces(case.data[:100], case.data[100:150], then=DISCONNECT), announce(case.data))
    answer = case.received()
    assert (answer.json(), answer.headers["content-type"]) == ({"received": 150}, CONTROL_TYPE)
    case.stream(pieces(case.data[150:200], then=DISCONNECT), announce(case.data, 150))
    answer = case.put(case.data[200:], announce(case.data, 200))
    assert (answer.status_code, answer.json()) == (202, {"task_id": case.task.task_id})
    assert answer.headers["content-type"] == CONTROL_TYPE
    assert case.files() == []


def test_it_goes_on_after_a_restart_of_the_server(case: Case) -> None:
    case.stream(pieces(case.data[:100], then=DISCONNECT), announce(case.data))
    with TestClient(create_app(case.api.fleet.state, "operators-token")) as restarted:
        case.api.fleet.state.uploads.__init__(case.folder)
        case.api.client = restarted
        assert case.received().json() == {"received": 100}
        assert case.put(case.data[100:], announce(case.data, 100)).status_code == 202


def test_after_a_lost_answer_an_empty_rest_gets_it_again(case: Case) -> None:
    assert case.put(case.data, announce(case.data)).status_code == 202
    assert case.received().json() == {"received": len(case.data)}
    assert case.put(b"", announce(case.data, len(case.data))).status_code == 202
    assert case.put(case.data, announce(case.data)).status_code == 202
    assert case.put(case.data, {}).status_code == 202


def test_a_piece_that_ends_in_good_order_is_kept_too(case: Case) -> None:
    answer = case.put(case.data[:100], announce(case.data))
    assert (answer.status_code, code(answer)) == (409, "wrong_offset")
    assert case.received().json() == {"received": 100}
    assert case.put(case.data[100:], announce(case.data, 100)).status_code == 202


@pytest.mark.parametrize("offset", [0, 99, 101])
def test_another_offset_than_the_servers_is_refused_and_loses_nothing(case: Case, offset: int) -> None:
    case.stream(pieces(case.data[:100], then=DISCONNECT), announce(case.data))
    answer = case.put(case.data[offset:], announce(case.data, offset))
    assert (answer.status_code, code(answer)) == (409, "wrong_offset")
    assert case.received().json() == {"received": 100}


def test_what_does_not_have_its_hash_in_the_end_is_dropped_and_sent_anew(case: Case) -> None:
    case.stream(pieces(case.data[:99] + b"?", then=DISCONNECT), announce(case.data))
    answer = case.put(case.data[100:], announce(case.data, 100))
    assert (answer.status_code, code(answer)) == (409, "wrong_offset")
    assert case.received().json() == {"received": 0}
    assert case.put(case.data, announce(case.data)).status_code == 202


def test_more_bytes_than_announced_are_dropped(case: Case) -> None:
    answer = case.put(case.data + b"x", announce(case.data))
    assert (answer.status_code, code(answer)) == (409, "wrong_offset")
    assert (case.received().json(), case.files()) == ({"received": 0}, [])


def test_a_device_has_one_file_at_most(case: Case) -> None:
    other = case.data[:-1] + b"?"
    case.stream(pieces(case.data[:100], then=DISCONNECT), announce(case.data))
    case.stream(pieces(other[:50], then=DISCONNECT), announce(other))
    assert case.received().json() == {"received": 0}
    assert case.received(other).json() == {"received": 50}
    assert len(case.files()) == 1
    case.stream(pieces(case.data[:10], then=DISCONNECT), {})  # not announced: nothing is kept
    assert case.files() == []


@pytest.mark.parametrize(
    ("headers", "status", "expected"),
    [
        ({"EdgeFL-Digest": "x"}, 422, "malformed"),
        ({"EdgeFL-Digest": "../" + "a" * 61}, 422, "malformed"),
        ({"EdgeFL-Digest": "a" * 64}, 422, "malformed"),
        ({"EdgeFL-Length": "5"}, 422, "malformed"),
        ({"EdgeFL-Offset": "5"}, 422, "malformed"),
        ({"EdgeFL-Offset": "-1"}, 422, "malformed"),
        ({"EdgeFL-Digest": "a" * 64, "EdgeFL-Length": "5", "EdgeFL-Offset": "6"}, 422, "malformed"),
        ({"EdgeFL-Digest": "a" * 64, "EdgeFL-Length": str(1 << 30)}, 413, "too_large"),
        ({"EdgeFL-Digest": "a" * 64, "EdgeFL-Length": "9" * 30}, 413, "too_large"),
    ],
)
def test_an_announcement_that_does_not_fit_is_refused(
    case: Case, headers: dict[str, str], status: int, expected: str
) -> None:
    answer = case.put(b"12345", headers)
    assert (answer.status_code, code(answer)) == (status, expected)
    assert case.files() == []


@pytest.mark.parametrize("announced", [True, False])
def test_what_is_not_wanted_is_refused_before_it_is_read(case: Case, announced: bool) -> None:
    case.stream(pieces(case.data[:100], then=DISCONNECT), announce(case.data))
    case.api.client.post(f"/v1/runs/{case.run}/stop", headers=ADMIN)

    async def nothing() -> dict[str, Any]:
        raise AssertionError("the body was read")

    status, answer = case.stream(nothing, announce(case.data, 100) if announced else {})
    assert (status, answer["error"]["code"]) == (409, "stale")
    asked = case.received()
    assert (asked.status_code, code(asked)) == (409, "stale")


def test_a_newer_upload_cuts_off_the_older_one_of_the_device(case: Case) -> None:
    async def scenario() -> list[tuple[int, Any]]:
        begun = asyncio.Event()
        first = pieces(case.data[:100], then=DISCONNECT)

        async def stalled() -> dict[str, Any]:
            if begun.is_set():
                await asyncio.Event().wait()
            begun.set()
            return await first()

        older = asyncio.create_task(case.streamed(stalled, announce(case.data)))
        await begun.wait()
        await asyncio.sleep(0.05)
        newer = await case.streamed(pieces(case.data[100:]), announce(case.data, 100))
        return [newer, await older]

    newer, older = case.api.client.portal.call(scenario)  # type: ignore[union-attr]
    assert newer == (202, {"task_id": case.task.task_id})
    assert (older[0], older[1]["error"]["code"]) == (409, "superseded")


def test_asking_cuts_off_what_is_still_under_way(case: Case) -> None:
    async def scenario() -> tuple[int, Any]:
        begun = asyncio.Event()
        first = pieces(case.data[:100], then=DISCONNECT)

        async def stalled() -> dict[str, Any]:
            if begun.is_set():
                await asyncio.Event().wait()
            begun.set()
            return await first()

        older = asyncio.create_task(case.streamed(stalled, announce(case.data)))
        await begun.wait()
        answer = await asyncio.to_thread(case.received)
        assert answer.json() == {"received": 100}
        return await older

    status, answer = case.api.client.portal.call(scenario)  # type: ignore[union-attr]
    assert (status, answer["error"]["code"]) == (409, "superseded")


def test_the_lease_is_kept_while_bytes_arrive(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgefl_server.http.receiving._RENEWAL_SECONDS", 0.0)
    case, other = Case(api, lease_seconds=30), api.device(1)
    clock, offset = api.fleet.clock, 0

    async def slow() -> dict[str, Any]:
        nonlocal offset
        clock.now += 20
        polled = await asyncio.to_thread(lambda: api.client.post("/v1/tasks/next", headers=other))
        assert polled.status_code == 204
        body = case.data[offset : offset + 100]
        offset += 100
        return {"type": "http.request", "body": body, "more_body": offset < len(case.data)}

    assert case.stream(slow, announce(case.data))[0] == 202


def test_a_task_that_is_lost_while_its_bytes_arrive_ends_the_upload(
    case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgefl_server.http.receiving._RENEWAL_SECONDS", 0.0)
    api = case.api

    async def receive() -> dict[str, Any]:
        await asyncio.to_thread(stop_once)
        return {"type": "http.request", "body": case.data[:10], "more_body": True}

    stopped: list[bool] = []

    def stop_once() -> None:
        if not stopped:
            stopped.append(stop_run(api.fleet.state, case.run))

    status, answer = case.stream(receive, announce(case.data))
    assert (status, answer["error"]["code"]) == (409, "stale")
    assert case.files() == []


def test_a_disk_that_fills_while_bytes_arrive_keeps_nothing(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    case.stream(pieces(case.data[:100], then=DISCONNECT), announce(case.data))

    class Full:
        def write(self, data: bytes) -> int:
            raise OSError(28, "No space left on device")

        def close(self) -> None:
            pass

    opened = Upload.__init__

    def open_full(self: Upload, *arguments: Any) -> None:
        opened(self, *arguments)
        self._file = Full()  # type: ignore[assignment]

    with monkeypatch.context() as patched:
        patched.setattr(Upload, "__init__", open_full)
        answer = case.put(case.data[100:], announce(case.data, 100))
    assert (answer.status_code, code(answer)) == (507, "storage_full")
    assert case.files() == []
    assert case.received().json() == {"received": 0}
    assert case.put(case.data, announce(case.data)).status_code == 202


def test_a_refused_outcome_leaves_no_file(case: Case) -> None:
    bad = case.data[:-1] + bytes([case.data[-1] ^ 1]) if case.data[-1] else b"x" + case.data[1:]
    answer = case.put(bad[: len(bad) // 2], {})
    assert (answer.status_code, code(answer)) == (422, "malformed")
    assert case.files() == []
    assert list(case.api.fleet.state.outcomes) == []


def test_a_model_is_not_kept_beside_the_store(api: Api) -> None:
    api.create_run()
    uploads = api.fleet.state.folder / "uploads"
    assert list(uploads.iterdir()) == []
    query = {"population": "people", "rounds": 1, "target": 1}
    answer = api.client.post("/v1/runs", params=query, content=make_model_file()[:-9], headers=ADMIN)
    assert answer.status_code == 422
    assert list(uploads.iterdir()) == []


def test_the_promise_holds_for_a_file_whose_database_row_failed(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*arguments: object, **named: object) -> None:
        raise StorageError("Could not write the database.")

    with monkeypatch.context() as patched:
        patched.setattr("edgefl_server.storage.outcomes._record", broken)
        assert case.put(case.data, announce(case.data)).status_code >= 500
    assert case.put(case.data, announce(case.data)).status_code == 202


def test_more_bytes_than_the_message_has_are_dropped_and_it_begins_anew(api: Api) -> None:
    case = Case(api)
    digest = hashlib.sha256(case.data).hexdigest()
    upload = api.fleet.state.uploads.open(case.task.task_id.split("-")[2], case.task.task_id, digest)
    upload.write(case.data + b"more")
    upload.keep()
    assert case.received().json() == {"received": len(case.data) + 4}
    answer = case.put(b"", announce(case.data, len(case.data)))
    assert (answer.status_code, code(answer)) == (409, "wrong_offset")
    assert case.received().json() == {"received": 0}
    assert case.put(case.data, announce(case.data)).status_code == 202


def test_outcomes_that_are_refused_again_and_again_are_one_line_of_the_log(
    api: Api, caplog: pytest.LogCaptureFixture
) -> None:
    api.create_run(target=2)
    devices = [api.device(index) for index in range(2)]
    for device in devices:
        path = f"/v1/tasks/{api.task(device).task_id}/outcome"
        for index in range(20):
            assert api.client.put(path, content=b"garbage %d" % index, headers=device).status_code == 422
    lines = [record.getMessage() for record in caplog.records]
    assert [line.split(" ")[0] for line in lines] == ["refused", "refused"]
    assert all(Identity.number(index).device in line for index, line in enumerate(lines))


@pytest.mark.parametrize(("most_bytes", "at_once"), [(1 << 20, 8), (64 << 20, 2)])
def test_short_bodies_are_checked_together_unless_they_may_unfold_into_large_vectors(
    most_bytes: int, at_once: int
) -> None:
    receiving, inside, go_on = Receiving(), threading.Semaphore(0), threading.Event()
    lock, now, most = threading.Lock(), 0, 0

    def check() -> None:
        nonlocal now, most
        with receiving.unfolding(most_bytes):
            with lock:
                now += 1
                most = max(most, now)
            inside.release()
            assert go_on.wait(60)
            with lock:
                now -= 1

    async def main() -> None:
        checks = [asyncio.create_task(receiving.use_short(check)) for _ in range(12)]
        for _ in range(at_once):
            assert await asyncio.to_thread(inside.acquire, timeout=60)
        go_on.set()
        await asyncio.gather(*checks)

    asyncio.run(main())
    assert (most, now) == (at_once, 0)
