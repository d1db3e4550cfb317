from __future__ import annotations

import json

import pytest
from fastapi.routing import APIRoute

from edgefl_server.http import operator_routes, people_routes
from edgefl_server.roles import Role
from edgefl_server.storage import add_operator, revoke_operator

from .conftest import ADMIN, Api, code

ROUTES = [
    each
    for router in (operator_routes.router, people_routes.router)
    for each in router.routes
    if isinstance(each, APIRoute)
]
READERS = {route.name for route in ROUTES if "GET" in route.methods} - {"get_operators"}
ADMINS = {"get_operators", "post_operator", "post_revocation"}


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
            route.path.replace("{run_id}", "none"),
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
    assert "create, pause, stop and extend runs: that needs the role operator" in refused.json()["error"]["message"]
    assert "\n" not in refused.json()["error"]["message"]
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
