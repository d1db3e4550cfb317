from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from fastapi.testclient import TestClient
from hypothesis import given
from hypothesis import strategies as st

from edgefl.errors import InvalidSettingError
from edgefl_server.http import create_app
from edgefl_server.http.rates import RateLimit, client_address, networks
from edgefl_server.storage import audit_entries
from fake_device import Identity

from .conftest import ADMIN, Api, code

PROXIES = networks(["10.0.0.0/8", "fd00::/8", "127.0.0.1"])


def scope(peer: str | None, *forwarded: str) -> dict[str, Any]:
    headers = [(b"x-forwarded-for", each.encode("latin-1", "replace")) for each in forwarded]
    return {"client": None if peer is None else (peer, 1), "headers": headers}


@pytest.mark.parametrize(
    ("peer", "forwarded", "found"),
    [
        ("1.2.3.4", ["9.9.9.9"], "1.2.3.4"),  # nobody's proxy: what it writes is nothing
        ("10.0.0.1", [], "10.0.0.1"),
        ("10.0.0.1", ["9.9.9.9"], "9.9.9.9"),
        ("10.0.0.1", ["6.6.6.6, 9.9.9.9"], "9.9.9.9"),  # the first was written by the client itself
        ("10.0.0.1", ["6.6.6.6, 9.9.9.9, 10.7.7.7"], "9.9.9.9"),
        ("10.0.0.1", ["6.6.6.6", "9.9.9.9"], "9.9.9.9"),
        ("10.0.0.1", ["10.1.1.1, 10.2.2.2"], "10.1.1.1"),
        ("10.0.0.1", ["nonsense"], "10.0.0.1"),
        ("10.0.0.1", ["9.9.9.9, <script>"], "10.0.0.1"),
        ("10.0.0.1", [",".join(["1.1.1.1"] * 2000)], "1.1.1.1"),
        ("::ffff:10.0.0.1", ["9.9.9.9"], "9.9.9.9"),
        ("fd00::1", ["2001:db8:1:2:3:4:5:6"], "2001:db8:1:2::/64"),
        ("2001:db8::7", [], "2001:db8::/64"),
        ("testclient", ["9.9.9.9"], "testclient"),
        (None, ["9.9.9.9"], ""),
    ],
)
def test_the_address_is_the_last_that_no_trusted_proxy_has(peer: str | None, forwarded: list[str], found: str) -> None:
    assert client_address(scope(peer, *forwarded), PROXIES) == found


def test_without_trusted_proxies_nobody_is_believed() -> None:
    assert client_address(scope("127.0.0.1", "9.9.9.9"), ()) == "127.0.0.1"


@given(st.text(max_size=200))
def test_any_header_gives_an_address(text: str) -> None:
    assert len(client_address(scope("10.0.0.1", text), PROXIES)) <= 64


@pytest.mark.parametrize("text", ["nonsense", "10.0.0.0/99", "a.b.c.d/8"])
def test_what_is_no_network_is_refused(text: str) -> None:
    with pytest.raises(InvalidSettingError, match="--trusted-proxies"):
        networks(["10.0.0.0/8", text])


def test_a_bucket_holds_a_minutes_worth_and_fills_up_evenly() -> None:
    now = 0.0
    limit = RateLimit(60, lambda: now)
    assert [limit.take("a") for _ in range(60)] == [0.0] * 60
    assert limit.take("a") == pytest.approx(1.0)
    assert limit.wait("a") == pytest.approx(1.0)
    assert limit.take("b") == limit.wait("c") == 0.0
    now = 1.5
    assert [limit.take("a"), round(limit.take("a"), 6)] == [0.0, 0.5]
    now = 1e6
    assert sum(limit.take("a") == 0.0 for _ in range(99)) == 60
    assert all(RateLimit(0).take("a") == 0.0 for _ in range(99))


def test_a_bucket_for_everybody_takes_no_memory_without_end() -> None:
    limit = RateLimit(60)
    for number in range(25_000):
        limit.take(str(number))
    assert len(limit._buckets) == 20_000


def limited(fleet: Any, **settings: Any) -> TestClient:
    return TestClient(create_app(fleet.state, "operators-token", **settings), client=("10.0.0.1", 1))


def test_a_device_that_asks_too_often_is_told_when_to_come_back_and_others_are_not(fleet) -> None:
    with limited(fleet, device_rate=5) as client:
        api = Api(client, fleet)
        mine, other = api.device(0), api.device(1)
        answers = [client.post("/v1/tasks/next", json={}, headers=mine) for _ in range(7)]
        assert [each.status_code for each in answers] == [204] * 5 + [429] * 2
        assert code(answers[-1]) == "too_many"
        assert 1 <= int(answers[-1].headers["Retry-After"]) <= 24
        assert client.post("/v1/tasks/next", json={}, headers=other).status_code == 204
        assert client.get("/v1/runs", headers=ADMIN).status_code == 200


def test_an_address_that_is_refused_again_and_again_is_not_looked_at_and_known_devices_of_it_are(fleet) -> None:
    with limited(fleet, address_rate=5, trusted_proxies=PROXIES) as client:
        api = Api(client, fleet)
        mine = api.device(0)
        assert client.post("/v1/tasks/next", json={}, headers=mine).status_code == 204
        bad = {"Authorization": Identity.number(9).authorization["Authorization"], "X-Forwarded-For": "9.9.9.9"}
        statuses = [client.post("/v1/tasks/next", json={}, headers=bad).status_code for _ in range(7)]
        assert statuses == [401] * 5 + [429] * 2
        here = {"X-Forwarded-For": "9.9.9.9"}
        # Who is known already, and the admin's token, need no look into the database.
        assert client.post("/v1/tasks/next", json={}, headers={**mine, **here}).status_code == 204
        assert client.get("/v1/runs", headers={**ADMIN, **here}).status_code == 200
        elsewhere = {**bad, "X-Forwarded-For": "6.6.6.6"}
        assert client.post("/v1/tasks/next", json={}, headers=elsewhere).status_code == 401
        forged = {**bad, "X-Forwarded-For": "6.6.6.6, 9.9.9.9"}
        assert client.post("/v1/tasks/next", json={}, headers=forged).status_code == 429
    (entry,) = [each for each in audit_entries(fleet.state)["audit"] if each["act"] == "refused"]
    assert entry["detail"]["from"] == {"9.9.9.9": 5, "6.6.6.6": 1}


def test_enrolments_that_are_refused_count_too(fleet) -> None:
    with limited(fleet, address_rate=3) as client:
        api = Api(client, fleet)
        answers = [api.enrol(number, population="others") for number in range(5)]
        assert [each.status_code for each in answers] == [403] * 3 + [429] * 2


def test_what_is_refused_for_asking_too_often_reads_nothing(fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    app = create_app(fleet.state, "operators-token", address_rate=1)
    sent: list[dict[str, Any]] = []

    async def ask() -> None:
        async def receive() -> dict[str, Any]:
            raise AssertionError("the body was read")

        async def send(message: dict[str, Any]) -> None:
            sent.append(message)

        token = Identity.number(9).authorization["Authorization"].encode()
        headers = [(b"authorization", token), (b"content-type", b"application/json"), (b"content-length", b"9")]
        request = {"type": "http", "method": "POST", "path": "/v1/tasks/next", "query_string": b"", "headers": headers}
        await app({**request, "client": ("9.9.9.9", 1), "state": {}}, receive, send)

    asyncio.run(ask())
    monkeypatch.setattr("edgefl_server.http.admission.authenticate", lambda *_: pytest.fail("the database was read"))
    asyncio.run(ask())
    assert [each["status"] for each in sent if "status" in each] == [401, 429]
    assert json.loads(sent[-1]["body"])["error"]["code"] == "too_many"
