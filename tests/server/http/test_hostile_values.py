"""Values that one database takes and the other does not, or that no answer can hold: never a 500, never a lost list."""

from __future__ import annotations

import pytest

from edgefl_server.storage import DeviceRow
from fake_device import Identity

from .conftest import ADMIN, Api, code


@pytest.fixture(params=["sqlite", "postgresql"])
def kind_of_database(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.mark.parametrize("said", ['"\\ud800"', "[" * 900 + "]" * 900, '{"x":' * 9 + "1" + "}" * 9])
def test_nothing_that_a_device_says_of_itself_keeps_operators_from_the_list(api: Api, said: str) -> None:
    me = {**api.device(0), "Content-Type": "application/json"}
    answer = api.client.post("/v1/tasks/next", content=f'{{"capabilities": {{"machine": {said}}}}}', headers=me)
    assert (answer.status_code, code(answer)) == (422, "invalid_setting")
    assert len(api.client.get("/v1/devices", headers=ADMIN).json()["devices"]) == 1


def test_capabilities_that_an_older_server_kept_are_not_shown_and_the_others_are(api: Api) -> None:
    api.device(0)
    api.device(1)
    with api.fleet.state.database.write() as session:
        session.get_one(DeviceRow, Identity.number(0).device).capabilities = {"machine": "\ud800"}
    found = api.client.get("/v1/devices", headers=ADMIN).json()["devices"]
    assert [each["capabilities"] for each in found] == [{}, {}]


@pytest.mark.parametrize("number", [2**31 - 1, 2**31, 2**53, 2**63, 10**400])
@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v1/audit?before={}"),
        ("GET", "/v1/runs/{run}/weights?round={}"),
        ("GET", "/v1/runs/{run}/diff?before=0&after={}"),
        ("POST", "/v1/runs/{run}/rollback?version={}"),
        ("POST", "/v1/runs/{run}/continue?rounds={}"),
    ],
)
def test_a_number_that_no_column_holds_is_refused_or_not_found(api: Api, method: str, path: str, number: int) -> None:
    run = api.create_run()["run"]
    answer = api.client.request(method, path.format(number, run=run), headers=ADMIN)
    assert answer.status_code in ((200, 404, 422) if number < 2**31 else (422,)), answer.text
