from __future__ import annotations

import hashlib

import pytest
from fastapi.testclient import TestClient

from edgefl.errors import InvalidSettingError
from edgefl.hashing import sha256
from edgefl.model_file import ModelFile
from edgefl_server.http import create_app
from model_files import make_model_file

from .conftest import ADMIN, Api, code

QUERY = {"population": "people", "rounds": 1, "target": 1}


@pytest.mark.parametrize("header", [None, "Bearer wrong", "operators-token", "Basic operators-token"])
@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/v1/invitations"),
        ("POST", "/v1/runs"),
        ("GET", "/v1/runs"),
        ("GET", "/v1/runs/abc"),
        ("POST", "/v1/runs/abc/stop"),
        ("GET", "/v1/runs/abc/weights"),
    ],
)
def test_only_the_operator_may_call(api: Api, method: str, path: str, header: str | None) -> None:
    headers = {} if header is None else {"Authorization": header}
    answer = api.client.request(method, path, headers=headers, params=QUERY, content=b"{}")
    assert (answer.status_code, code(answer)) == (401, "wrong_token")


def test_a_device_is_no_operator(api: Api) -> None:
    assert api.client.get("/v1/runs", headers=api.device(0)).status_code == 401


def test_an_invitation_lets_a_device_in(api: Api) -> None:
    answer = api.client.post("/v1/invitations", json={"population": "people"}, headers=ADMIN)
    assert answer.status_code == 201
    assert api.enrol(5, token=answer.json()["token"]).status_code == 201


def test_an_invitation_for_no_name_is_refused(api: Api) -> None:
    answer = api.client.post("/v1/invitations", json={"population": "a b"}, headers=ADMIN)
    assert (answer.status_code, code(answer)) == (422, "invalid_setting")


def test_a_run_for_a_population_without_devices_says_where_there_are_some(api: Api) -> None:
    refused = api.client.post("/v1/runs", params={**QUERY, "population": "poeple"}, headers=ADMIN)
    assert (refused.status_code, code(refused)) == (422, "invalid_setting")
    assert refused.json()["error"]["hint"].startswith("There is: people. ")
    assert api.create_run()["warnings"] == ["no device is enrolled in people yet, the run waits for some"]
    api.device(0)
    assert api.create_run()["warnings"] == []
    api.client.post("/v1/invitations", json={"population": "pumps"}, headers=ADMIN)
    (told,) = api.create_run(population="pumps")["warnings"]
    assert told.endswith("there are devices in: people")


def test_a_run_is_created_shown_listed_and_stopped(api: Api) -> None:
    created = api.create_run(name="mine", over_selection=1.5, deadline_seconds=60)
    assert api.status(created["run"])["settings"]["over_selection"] == 1.5
    listed = api.client.get("/v1/runs", headers=ADMIN).json()["runs"]
    assert [(entry["run"], entry["name"]) for entry in listed] == [(created["run"], "mine")]
    stopped = api.client.post(f"/v1/runs/{created['run']}/stop", headers=ADMIN)
    assert stopped.json()["state"] == "stopped"
    again = api.client.post(f"/v1/runs/{created['run']}/stop", headers=ADMIN)
    assert (again.status_code, code(again)) == (409, "ended")


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"rounds": 0}, "invalid_setting"),
        ({"target": "x"}, "malformed"),
        ({"minimum": 2}, "invalid_setting"),
        ({"codec": "zip"}, "invalid_setting"),
        ({"codec": "stc", "clip_norm": 1}, "invalid_setting"),
        ({"down_codec": "rand-0.25+drive"}, "invalid_setting"),
        ({"learning_rate": "nan"}, "invalid_setting"),
        ({"population": "a/b"}, "invalid_setting"),
        ({"unheard_of": 1}, "malformed"),
    ],
)
def test_a_run_with_a_wrong_setting_is_refused(api: Api, change: dict, expected: str) -> None:
    answer = api.client.post("/v1/runs", params={**QUERY, **change}, content=make_model_file(), headers=ADMIN)
    assert (answer.status_code, code(answer)) == (422, expected)
    assert api.client.get("/v1/runs", headers=ADMIN).json() == {"runs": [], "warnings": []}


def test_a_file_that_is_no_model_is_refused(api: Api) -> None:
    answer = api.client.post("/v1/runs", params=QUERY, content=b"hello", headers=ADMIN)
    assert (answer.status_code, code(answer)) == (422, "bad_model_file")


def test_weights_come_as_a_vector_with_their_round_and_hash(api: Api) -> None:
    run = api.create_run()["run"]
    answer = api.client.get(f"/v1/runs/{run}/weights", params={"round": 0}, headers=ADMIN)
    assert answer.content == ModelFile(make_model_file()).initial_weights().tobytes()
    assert answer.headers["EdgeFL-Round"] == "0"
    assert answer.headers["ETag"].strip('"') == hashlib.sha256(answer.content).hexdigest()
    missing = api.client.get(f"/v1/runs/{run}/weights", params={"round": 1}, headers=ADMIN)
    assert (missing.status_code, code(missing)) == (404, "unknown_run")


@pytest.mark.parametrize("run", ["ffff", "..%2f..", "XYZ"])
def test_a_run_that_does_not_exist_is_404_or_refused(api: Api, run: str) -> None:
    answer = api.client.get(f"/v1/runs/{run}", headers=ADMIN)
    assert answer.status_code in (404, 422)
    code(answer)


@pytest.mark.parametrize(("method", "path"), [("GET", "/nothing"), ("DELETE", "/v1/runs"), ("GET", "/docs")])
def test_what_is_not_there_is_a_json_error_too(api: Api, method: str, path: str) -> None:
    answer = api.client.request(method, path, headers=ADMIN)
    assert answer.status_code in (404, 405)
    code(answer)


def test_the_description_names_every_call_once(api: Api) -> None:
    document = api.client.get("/openapi.json").json()
    operations = [operation for path in document["paths"].values() for operation in path.values()]
    assert len({operation["operationId"] for operation in operations}) == len(operations) == 39
    assert all(operation["summary"] and operation["description"] for operation in operations)


def test_bodies_of_control_calls_are_small(api: Api) -> None:
    answer = api.client.post("/v1/invitations", content=bytes(1 << 20), headers=ADMIN)
    assert (answer.status_code, code(answer)) == (413, "too_large")
    answer = api.client.post("/v1/invitations", content=(b"x" * 50_000 for _ in range(4)), headers=ADMIN)
    assert (answer.status_code, code(answer)) == (413, "too_large")


def test_a_model_beyond_the_limit_is_too_large(fleet) -> None:
    with TestClient(create_app(fleet.state, "operators-token", max_model_bytes=100)) as client:
        answer = client.post("/v1/runs", params=QUERY, content=make_model_file(), headers=ADMIN)
    assert (answer.status_code, code(answer)) == (413, "too_large")


@pytest.mark.parametrize("token", ["", "   ", "short"])
def test_a_server_does_not_start_with_a_token_that_protects_nothing(fleet, token: str) -> None:
    with pytest.raises(InvalidSettingError, match="at least 12"):
        create_app(fleet.state, token)


@pytest.mark.parametrize("header", ["Bearer", "Bearer ", "Bearer  ", "bearer \t", ""])
def test_an_empty_token_never_authenticates_an_operator(api: Api, header: str) -> None:
    api.client.app.state.context.admin_token_hash = sha256(b"")  # as if the server had been started with none
    assert api.client.get("/v1/runs", headers={"Authorization": header}).status_code == 401


def test_a_run_is_paused_compared_rolled_back_and_begun_with_weights_by_calls(api: Api) -> None:
    run = api.create_run(rounds=5)["run"]

    def call(method: str, path: str, status: int = 200, **more: object) -> dict:
        answer = api.client.request(method, f"/v1/{path}", headers=ADMIN, **more)
        assert answer.status_code == status, answer.text
        return answer.json()

    assert call("POST", f"runs/{run}/pause")["state"] == "paused"
    assert call("POST", f"runs/{run}/resume")["state"] == "active"
    assert call("POST", f"runs/{run}/resume", 409)["error"]["code"] == "ended"
    assert [each["by"] for each in call("GET", f"runs/{run}/history")["versions"]] == ["start"]
    assert call("GET", f"runs/{run}/diff", params={"before": 0, "after": 0})["difference"] == 0
    assert call("GET", f"runs/{run}/diff", 404, params={"before": 0, "after": 9})["error"]["code"] == "unknown_run"
    assert call("POST", f"runs/{run}/rollback", params={"version": 0})["round"] == 2
    assert call("GET", f"runs/{run}/log") == {**call("GET", f"runs/{run}/log"), "folds": [], "rollbacks": {"1": 0}}
    size = len(api.client.get(f"/v1/runs/{run}/weights", headers=ADMIN).content)
    digest = call("POST", "initial-weights", 201, content=b"\0" * size)["weights_hash"]
    new = call("POST", "runs", 201, params={**QUERY, "weights": digest}, content=make_model_file())
    assert new["initial_weights_hash"] == digest
    for unknown in ("0" * 64, "zz", "../models"):
        refused = call("POST", "runs", 422, params={**QUERY, "weights": unknown}, content=make_model_file())
        assert "There are no weights" in refused["error"]["message"]
        refused = call("POST", "runs", 422, params={**QUERY, "evaluate_on": unknown}, content=make_model_file())
        assert "There is no data" in refused["error"]["message"]
    for path, name in (("rollback", "version"), ("diff", "after"), ("weights", "round")):
        asked = {"before": 0, name: 10**30} if path == "diff" else {name: 10**30}
        refused = call("POST" if path == "rollback" else "GET", f"runs/{run}/{path}", 422, params=asked)
        assert refused["error"]["code"] == "malformed"
    assert call("POST", f"runs/{run}/stop")["state"] == "stopped"
    assert call("POST", f"runs/{run}/rollback", 409, params={"version": 0})["error"]["code"] == "ended"
