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
    assert {each["device"]: each["capabilities"] for each in found} == dict.fromkeys(
        [Identity.number(0).device, Identity.number(1).device], {}
    )
