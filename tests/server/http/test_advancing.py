"""The loop that advances rounds: one run's trouble is its own, and the server's own trouble is said once."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import pytest
from fastapi.testclient import TestClient

from edgefl.errors import StorageError
from edgefl_server.http import advancing, create_app
from edgefl_server.storage import Refusals, folding, run_status
from model_files import make_model_file

from .conftest import ADMIN, Api, code

BOUND_SECONDS = 60.0


def until(condition: Callable[[], object]) -> None:
    """Waits for what must happen; how long it may take is no promise."""
    over = time.monotonic() + BOUND_SECONDS
    while not condition():
        assert time.monotonic() < over
        time.sleep(0.01)


def done(api: Api, run: str) -> Callable[[], bool]:
    return lambda: api.status(run)["state"] == "done"


@pytest.mark.parametrize("kind", ["fails", "hangs"])
def test_a_run_whose_folding_fails_or_takes_for_ever_does_not_hold_up_another(
    api: Api, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    device = api.device(0)
    stuck = api.create_run(target=1, rounds=1)["run"]
    fold, tries, go_on = folding._fold, [], threading.Event()

    def fold_or_not(state, run: str, number: int, moved) -> None:
        if run == stuck:
            tries.append(run)
            if kind == "fails":
                raise ZeroDivisionError
            assert go_on.wait(BOUND_SECONDS)
        fold(state, run, number, moved)

    monkeypatch.setattr(folding, "_fold", fold_or_not)
    assert api.put(device, api.task(device)).status_code == 202
    until(lambda: tries)
    healthy = api.create_run(target=1, rounds=10, seed=9)["run"]
    for _ in range(10):
        assert api.put(device, api.task(device, wait=30)).status_code == 202
    until(done(api, healthy))
    assert len(tries) == 1  # in all that time it rested: the clock of this server stands still
    assert api.status(stuck)["history"][0]["state"] == "folding"
    if kind == "fails":
        assert api.status(stuck)["troubles"] == ["cannot fold: ZeroDivisionError"]
        monkeypatch.setattr(folding, "_fold", fold)
        api.fleet.clock.now += 5
    go_on.set()
    until(done(api, stuck))


def test_a_database_that_fails_while_the_server_runs_is_said_once_and_answered_with_503(
    api: Api, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    device = api.device(0)
    run = api.create_run()["run"]
    state = api.fleet.state

    def damaged(action: str) -> None:
        raise StorageError("The database /secret/path is damaged: database disk image is malformed.")

    with monkeypatch.context() as patched:
        patched.setattr(state.database, "read", lambda: damaged("read"))
        patched.setattr(state.database, "write", lambda: damaged("write"))
        api.client.app.state.context.folding.ring()
        for _ in range(20):
            for answer in (
                api.client.post("/v1/tasks/next", json={}, headers=device),
                api.client.get(f"/v1/runs/{run}", headers=ADMIN),
            ):
                assert (answer.status_code, code(answer)) == (503, "storage_failed")
                assert "/secret" not in answer.text
                assert int(answer.headers["Retry-After"]) > 0
        until(lambda: state.troubles.rest("", "advance rounds", state.clock()))
    said = [record.getMessage() for record in caplog.records if "malformed" in record.getMessage()]
    # For those who ask, for the rounds, and for evaluations where these were due meanwhile.
    assert 2 <= len(said) == len(set(said)) <= 3
    assert "Traceback" not in caplog.text
    listed = api.client.get("/v1/runs", headers=ADMIN).json()
    assert any("malformed" in line for line in listed["warnings"])
    assert api.task(device).run == run


def test_the_time_is_kept_and_old_files_and_rows_go_now_and_then(fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    did: list[str] = []
    monkeypatch.setattr(fleet.state, "keep_time", lambda: did.append("time"))
    monkeypatch.setattr(advancing, "sweep_outcomes", lambda state, starting: did.append(f"files {starting}"))
    monkeypatch.setattr(advancing, "prune_rows", lambda state: did.append("rows"))
    chores = advancing.Chores(fleet.state, Refusals(fleet.clock))
    chores.do()
    assert did == []
    for _ in range(120):
        fleet.clock.now += 60
        chores.do()
    assert did.count("time") == 120
    assert (did.count("files False"), did.count("rows")) == (2, 2)


def test_a_cloned_card_is_shown_to_the_operator(api: Api) -> None:
    run, device, other = api.create_run(target=1)["run"], api.device(0), api.device(1)
    for index in range(6):
        headers = {**device, "EdgeFL-Instance": "ab"[index % 2] * 32}
        assert api.client.post("/v1/tasks/next", json={}, headers=headers).status_code in (200, 204)
        api.client.post("/v1/tasks/next", json={}, headers={**other, "EdgeFL-Instance": "c" * 32})
    listed = api.client.get("/v1/runs", headers=ADMIN).json()["warnings"]
    assert len(listed) == 1
    assert "exists twice" in listed[0]
    assert api.status(run)["warnings"] == listed
    assert run_status(api.fleet.state, run)["warnings"] == listed


def test_a_name_that_an_active_run_has_is_taken(api: Api) -> None:
    first = api.create_run(name="mine")["run"]
    query = {"population": "people", "rounds": 1, "target": 1, "name": "mine"}
    answer = api.client.post("/v1/runs", params=query, content=make_model_file(), headers=ADMIN)
    assert (answer.status_code, code(answer)) == (409, "name_taken")
    assert api.status("mine")["run"] == first


def test_a_database_deleted_while_the_server_runs_is_said_once_and_answered_with_503(
    api: Api, caplog: pytest.LogCaptureFixture
) -> None:
    device = api.device(0)
    run = api.create_run()["run"]
    task, state = api.task(device), api.fleet.state
    path = state.folder / "server.sqlite"
    path.rename(path.with_name("away"))
    api.client.app.state.context.folding.ring()
    until(lambda: any("was deleted" in each for each in api.status(run)["warnings"]))
    for _ in range(3):
        answer = api.put(device, task)
        assert (answer.status_code, code(answer)) == (503, "storage_failed")
    assert caplog.text.count("was deleted while the server runs") == 1
    path.with_name("away").rename(path)
    assert api.put(device, task).status_code == 202


def test_soon_after_a_round_its_outcomes_are_gone_and_so_they_are_when_the_server_stops(fleet) -> None:
    state = fleet.state
    with TestClient(create_app(state, "operators-token")) as client:
        api = Api(client, fleet)
        device = api.device(0)
        api.create_run(target=1, rounds=2)
        assert api.put(device, api.task(device)).status_code == 202
        task = api.task(device, wait=30)  # the round is folded
        until(lambda: not list(state.outcomes))
        assert api.put(device, task).status_code == 202
        until(lambda: state.folded)
    assert list(state.outcomes) == []
