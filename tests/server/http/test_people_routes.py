from __future__ import annotations

import json

import pytest
from fastapi.routing import APIRoute

from edgefl.errors import StorageError
from edgefl_server.http import fleet_routes, operator_routes, people_routes
from edgefl_server.roles import Role
from edgefl_server.storage import add_operator, audit_entries, revoke_operator

from .conftest import ADMIN, Api, code

ROUTES = [
    each
    for router in (fleet_routes.router, operator_routes.router, people_routes.router)
    for each in router.routes
    if isinstance(each, APIRoute)
]
READERS = {route.name for route in ROUTES if "GET" in route.methods} - {"get_operators"}
ADMINS = {"get_operators", "post_operator", "post_revocation", "post_invitation_revocation", "post_removal"}


def keyed(api: Api, role: Role, name: str = "") -> dict[str, str]:
    return {"Authorization": f"Bearer {add_operator(api.fleet.state, name or f'an {role}', role)}"}


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: route.name)
def test_every_call_of_operators_needs_a_role_and_says_which(api: Api, route: APIRoute) -> None:
    roles = list(Role)
    needed = Role.VIEWER if route.name in READERS else Role.ADMIN if route.name in ADMINS else Role.OPERATOR
    (method,) = route.methods
    query = {"population": "nowhere", "rounds": 1, "target": 1, "version": 0, "before": 0, "after": 0}
    body = json.dumps({"population": "a b", "name": "nobody", "role": "viewer"}).encode()
    for role in roles:
        answer = api.client.request(
            method,
            route.path.replace("{run_id}", "none")
            .replace("{invitation_id}", "0" * 12)
            .replace("{device_id}", "0" * 32),
            params=query if "runs" in route.path else {},
            content=body if method == "POST" else None,
            headers={"Content-Type": "application/json", **keyed(api, role)},
        )
        if roles.index(role) < roles.index(needed):
            assert (answer.status_code, code(answer)) == (403, "role_needed")
            assert f"needs the role {needed}" in answer.json()["error"]["message"]
        else:
            assert answer.status_code not in (401, 403), answer.text


def test_a_viewer_who_stops_a_run_is_told_what_that_needs_and_the_run_goes_on(api: Api) -> None:
    run = api.create_run()["run"]
    viewer = keyed(api, Role.VIEWER, "<b>eve</b>\n")
    refused = api.client.post(f"/v1/runs/{run}/stop", headers=viewer)
    assert (refused.status_code, code(refused)) == (403, "role_needed")
    message = refused.json()["error"]["message"]
    assert "create, pause, stop, extend or roll back runs: that needs the role operator" in message
    assert "\n" not in message
    assert api.client.get(f"/v1/runs/{run}", headers=viewer).json()["state"] == "active"


def test_an_operator_is_added_asks_and_is_revoked(api: Api) -> None:
    added = api.client.post("/v1/operators", json={"name": "ada", "role": "operator"}, headers=ADMIN)
    assert added.status_code == 201
    mine = {"Authorization": f"Bearer {added.json()['key']}"}
    assert api.client.get("/v1/operator", headers=mine).json()["operator"] == "ada"
    assert api.client.post("/v1/invitations", json={"population": "people"}, headers=mine).status_code == 201
    (listed,) = api.client.get("/v1/operators", headers=ADMIN).json()["operators"]
    assert (listed["name"], listed["role"], listed["state"]) == ("ada", "operator", "active")
    assert api.client.post("/v1/operators/revoke", json={"name": "ada"}, headers=ADMIN).status_code == 200
    refused = api.client.get("/v1/operator", headers=mine)
    assert (refused.status_code, code(refused)) == (401, "wrong_token")
    assert "was revoked" in refused.json()["error"]["message"]
    assert refused.headers["WWW-Authenticate"] == "Bearer"


def test_the_token_of_the_file_is_the_admins(api: Api) -> None:
    assert api.client.get("/v1/operator", headers=ADMIN).json()["role"] == "admin"
    refused = api.client.post("/v1/operators/revoke", json={"name": "admin"}, headers=ADMIN)
    assert (refused.status_code, code(refused)) == (422, "invalid_setting")
    assert "deleting the file" in refused.json()["error"]["hint"]


@pytest.mark.parametrize(
    "change",
    [
        {"role": "god"},
        {"name": ""},
        {"name": "\ud800"},
        {"name": "x" * 300},
        {"expires_seconds": 0},
        {"expires_seconds": 1e300},
    ],
)
def test_an_operator_of_another_form_is_refused(api: Api, change: dict) -> None:
    body = json.dumps({"name": "ada", "role": "viewer", **change}).encode()
    headers = {**ADMIN, "Content-Type": "application/json"}
    assert api.client.post("/v1/operators", content=body, headers=headers).status_code == 422


def test_a_key_that_was_revoked_between_two_calls_of_a_connection_is_refused(api: Api) -> None:
    viewer = keyed(api, Role.VIEWER, "eve")
    assert api.client.get("/v1/runs", headers=viewer).status_code == 200
    revoke_operator(api.fleet.state, "eve")
    assert api.client.get("/v1/runs", headers=viewer).status_code == 401


def entries(api: Api) -> list[dict]:
    return api.client.get("/v1/audit", headers=ADMIN).json()["audit"]


def test_every_act_is_in_the_audit_log_with_who_did_what_to_which_run(api: Api) -> None:
    name = "<b>ada</b>\n"
    ada = keyed(api, Role.OPERATOR, name)
    run = api.create_run(name="mine")["run"]
    for what in ("pause", "resume", "continue?rounds=2", "stop"):
        assert api.client.post(f"/v1/runs/mine/{what}", headers=ada).status_code == 200
    api.client.get("/v1/runs", headers=ada)
    assert api.client.post("/v1/runs/mine/stop", headers=ada).status_code in (404, 409)  # nothing was done
    found = [(each["who"], each["role"], each["act"], each["about"]) for each in reversed(entries(api))]
    assert found == [
        ("admin", "admin", "runs.create", run),
        *((name, "operator", f"runs.{what}", run) for what in ("pause", "resume", "continue", "stop")),
    ]


def test_no_key_is_in_the_audit_log(api: Api) -> None:
    key = api.client.post("/v1/operators", json={"name": "ada", "role": "viewer"}, headers=ADMIN).json()["key"]
    token = api.client.post("/v1/invitations", json={"population": "p"}, headers=ADMIN).json()["token"]
    told = json.dumps(entries(api))
    assert "operators.create" in told
    assert key not in told
    assert token not in told


def test_refusals_are_counted_and_told_when_the_server_stops(api: Api) -> None:
    viewer = keyed(api, Role.VIEWER, "eve")
    for _ in range(3):
        api.client.get("/v1/runs", headers={"Authorization": "Bearer wrong"})
        api.client.post("/v1/tasks/next")
    api.client.post("/v1/invitations", json={"population": "p"}, headers=viewer)
    assert entries(api) == []
    api.client.__exit__()
    (entry,) = audit_entries(api.fleet.state)["audit"]
    assert entry["detail"]["kinds"] == {"device": 3, "operator": 3, "role": 1}
    assert entry["detail"]["from"] == {"testclient": 6, "eve": 1}


def test_an_act_that_the_log_cannot_take_is_answered_as_done_and_shown(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = api.create_run()["run"]

    def fail(*_: object) -> None:
        raise StorageError("the disk is full", full=True)

    monkeypatch.setattr("edgefl_server.http.auditing.note_act", fail)
    assert api.client.post(f"/v1/runs/{run}/pause", headers=ADMIN).status_code == 200
    assert "write the audit log" in str(api.client.get("/v1/runs", headers=ADMIN).json()["warnings"])


def test_an_invitation_ends_is_listed_and_revoked_by_calls(api: Api) -> None:
    asked = {"population": "people", "uses": 1, "expires_seconds": 60, "label": "<i>hall</i>"}
    made = api.client.post("/v1/invitations", json=asked, headers=ADMIN)
    assert (made.status_code, {**made.json(), "token": ""}) == (201, {**asked, "token": ""})
    assert api.enrol(5, token=made.json()["token"]).status_code == 201
    refused = api.enrol(6, token=made.json()["token"])
    assert (refused.status_code, code(refused)) == (403, "invitation_over")
    first, second = api.client.get("/v1/invitations", headers=ADMIN).json()["invitations"]
    assert {first["label"], second["label"]} == {"", "<i>hall</i>"}
    assert made.json()["token"] not in json.dumps([first, second])
    other = next(each["id"] for each in (first, second) if not each["label"])
    assert api.client.post(f"/v1/invitations/{other}/revoke", headers=ADMIN).status_code == 200
    assert api.enrol(7).json()["error"]["message"] == "The invitation was revoked."
    assert api.enrol(5).status_code == 200
