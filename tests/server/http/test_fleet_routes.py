from __future__ import annotations

import json

import pytest

from edgefl_server.storage import Quota, limit_device
from edgefl_server.storage.database import Database
from fake_device import Identity

from .conftest import ADMIN, Api, code


def call(api: Api, device: int, what: str, document: dict | None = None) -> dict:
    path = f"/v1/devices/{Identity.number(device).device}/{what}"
    answer = api.client.post(path, json=document, headers=ADMIN)
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_a_blocked_device_is_told_so_by_every_call_and_goes_on_once_it_is_unblocked(api: Api) -> None:
    me = api.device(0)
    api.create_run(target=1)
    task = api.task(me)
    assert call(api, 0, "block")["state"] == "blocked"
    for method, path in (
        ("POST", "/v1/tasks/next"),
        ("POST", f"/v1/tasks/{task.task_id}/lease"),
        ("PUT", f"/v1/tasks/{task.task_id}/outcome"),
        ("GET", f"/v1/models/{task.model_hash}"),
    ):
        refused = api.client.request(method, path, headers=me)
        assert (refused.status_code, code(refused)) == (403, "blocked")
        assert 300 <= int(refused.headers["Retry-After"]) <= 600
    assert api.enrol(0).status_code == 200  # its agent stays, and comes back by itself
    assert call(api, 0, "unblock")["state"] == "active"
    assert api.client.post("/v1/tasks/next", headers=me).status_code in (200, 204)


def test_a_removed_device_is_unknown_although_it_was_known_a_moment_ago(api: Api) -> None:
    me = api.device(0)
    assert api.client.post("/v1/tasks/next", headers=me).status_code == 204
    gone = call(api, 0, "remove")
    assert (gone["dropped"], gone["folded"]) == (0, 0)
    refused = api.client.post("/v1/tasks/next", headers=me)
    assert (refused.status_code, code(refused)) == (401, "unknown_device")
    refused = api.enrol(0)
    assert (refused.status_code, code(refused)) == (409, "identity_taken")
    assert api.fleet.state.seen.of(Identity.number(0).device) is None  # nobody is told when it still calls
    missing = api.client.get(f"/v1/devices/{Identity.number(0).device}", headers=ADMIN)
    assert (missing.status_code, code(missing)) == (404, "not_found")


def test_a_device_that_used_up_its_quota_is_told_when_to_come_back_and_keeps_its_open_task(api: Api) -> None:
    me = api.device(0)
    api.create_run(rounds=9)
    limit_device(api.fleet.state, Identity.number(0).device, Quota(outcomes=1))
    task = api.task(me)
    assert api.task(me).task_id == task.task_id
    assert api.put(me, task).status_code == 202
    refused = api.client.post("/v1/tasks/next", headers=me)
    assert (refused.status_code, code(refused)) == (429, "quota_used_up")
    assert 86_000 < int(refused.headers["Retry-After"]) <= 86_400
    assert call(api, 0, "quota", {})["quota"] == {"outcomes": None, "bytes": None}
    assert api.client.post("/v1/tasks/next", json={"wait": 5}, headers=me).status_code == 200


def test_devices_are_listed_in_pages_with_when_they_called(api: Api) -> None:
    for number in range(5):
        api.device(number)
    api.client.post("/v1/tasks/next", headers=Identity.number(3).authorization)
    call(api, 3, "tags", {"tags": ["hall"]})
    found: list[dict] = []
    after = ""
    while True:
        page = api.client.get("/v1/devices", params={"limit": 2, "after": after}, headers=ADMIN).json()
        found += page["devices"]
        if page["next"] is None:
            break
        after = page["next"]
    assert len({each["device"] for each in found}) == len(found) == 5
    called = [each["device"] for each in found if each["seen_at"] is not None]
    assert called == [Identity.number(3).device]
    (tagged,) = api.client.get("/v1/devices", params={"tag": "hall"}, headers=ADMIN).json()["devices"]
    assert tagged["device"] == Identity.number(3).device


def test_what_a_device_says_of_itself_is_told_as_it_is(api: Api) -> None:
    said = {"machine": "<script>alert(1)</script>\n"}
    api.enrol(0, capabilities=said)
    answer = api.client.get(f"/v1/devices/{Identity.number(0).device[:8]}", headers=ADMIN)
    assert answer.json()["capabilities"] == said
    assert answer.headers["Content-Type"] == "application/json"


@pytest.mark.parametrize(
    "query", [{"limit": 0}, {"limit": 10**6}, {"after": "x"}, {"tag": "a b"}, {"state": "gone"}, {"population": "../x"}]
)
def test_a_page_of_another_form_is_refused(api: Api, query: dict) -> None:
    assert api.client.get("/v1/devices", params=query, headers=ADMIN).status_code == 422


def test_an_invitation_lists_no_devices(api: Api) -> None:
    refused = api.client.get("/v1/devices", headers={"Authorization": f"Bearer {api.fleet.token}"})
    assert (refused.status_code, code(refused)) == (401, "wrong_token")


def test_a_poll_reads_as_little_from_the_database_as_before(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    me = api.device(0)
    reads: list[str] = []
    read, write = Database.read, Database.write
    monkeypatch.setattr(Database, "read", lambda self: (reads.append("read"), read(self))[1])
    monkeypatch.setattr(Database, "write", lambda self: (reads.append("write"), write(self))[1])
    for _ in range(3):
        assert api.client.post("/v1/tasks/next", json={"wait": 0}, headers=me).status_code == 204
    # The outlook of its population, which all that ask within a second share; and the credentials, once.
    assert reads.count("write") == 0
    assert len(reads) <= 2 + 3


def test_every_act_on_a_device_is_in_the_audit_log_with_its_whole_id(api: Api) -> None:
    api.device(0)
    me = Identity.number(0).device
    for what, document in (("tags", {"tags": ["x"]}), ("quota", {"outcomes": 3}), ("block", None), ("remove", None)):
        answer = api.client.post(f"/v1/devices/{me[:8]}/{what}", json=document, headers=ADMIN)
        assert answer.status_code == 200, answer.text
    entries = api.client.get("/v1/audit", headers=ADMIN).json()["audit"]
    assert [(each["act"], each["about"]) for each in reversed(entries)] == [
        ("devices.enrol", "people"),
        *((f"devices.{what}", me) for what in ("tags", "quota", "block", "remove")),
    ]
    assert json.loads(json.dumps(entries[0]["detail"])) == {"dropped": 0, "folded": 0}
