"""Who is called when a task ends, and that what is wrong with a run is never told as if the device had done it."""

from __future__ import annotations

import hashlib
import threading
from typing import Any

import pytest

from edgefl.wire.messages import Outcome, OutcomeStatus, Reason
from edgefl_server.http import advancing

from .conftest import ADMIN, Api, code


def spoil(api: Api, run: str, settings: str) -> str:
    """Overwrites a run's settings; returns what they were."""
    with api.fleet.state.database.write() as session:
        connection = session.objects.connection()
        (before,) = connection.exec_driver_sql("SELECT settings FROM runs WHERE run = ?", (run,)).one()
        connection.exec_driver_sql("UPDATE runs SET settings = ? WHERE run = ?", (settings, run))
    return str(before)


def waiting(api: Api, headers: dict[str, str], answers: list[Any]) -> threading.Thread:
    """A device that stands in line."""

    def wait() -> None:
        body = {"wait": 10, "until_idle": False}
        answers.append(api.client.post("/v1/tasks/next", json=body, headers=headers))

    line = api.client.app.state.context.work  # type: ignore[attr-defined]
    thread = threading.Thread(target=wait)
    thread.start()
    while not line._waits:
        assert thread.is_alive()
    return thread


def poll(api: Api, headers: dict[str, str]) -> Any:
    return api.client.post("/v1/tasks/next", json={"wait": 0}, headers=headers)


def lease(api: Api, headers: dict[str, str], task_id: str) -> Any:
    return api.client.post(f"/v1/tasks/{task_id}/lease", headers=headers)


@pytest.fixture
def nobody_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    """The loop that looks at deadlines comes too late."""
    monkeypatch.setattr(advancing, "close_due_rounds", lambda state: False)


def test_an_outcome_that_closes_its_round_as_failed_calls_those_that_wait_into_the_next(
    api: Api, nobody_looks: None
) -> None:
    late, other, third = (api.device(index) for index in range(3))
    run = api.create_run(target=2, over_selection=1.0, deadline_seconds=10)["run"]
    task = api.task(late)
    api.task(other)
    answers: list[Any] = []
    thread = waiting(api, third, answers)
    api.fleet.clock.now += 11
    assert api.put(late, task).status_code == 202
    thread.join()
    assert api.status(run)["history"][0]["state"] == "failed"
    assert [answer.status_code for answer in answers] == [200]


def test_places_of_overdue_tasks_that_an_outcome_ends_are_given_to_those_that_wait(
    api: Api, nobody_looks: None
) -> None:
    first, keeps, third = (api.device(index) for index in range(3))
    api.create_run(target=2, over_selection=1.0, lease_seconds=10, task_seconds=20)
    kept = api.task(keeps)
    api.fleet.clock.now += 9
    task = api.task(first)
    assert lease(api, keeps, kept.task_id).status_code == 200
    api.fleet.clock.now += 9
    assert lease(api, keeps, kept.task_id).status_code == 200
    answers: list[Any] = []
    thread = waiting(api, third, answers)
    api.fleet.clock.now += 3
    assert api.put(first, task).status_code == 202
    thread.join()
    assert [answer.status_code for answer in answers] == [200]


def test_a_device_that_has_done_its_part_does_not_queue_for_the_writer(api: Api) -> None:
    device = api.device(0)
    api.create_run(target=2)
    assert api.put(device, api.task(device)).status_code == 202
    with api.fleet.state.database.write():
        assert poll(api, device).status_code == 204


def test_what_became_of_a_task_is_said_of_a_run_that_cannot_be_read_too(api: Api) -> None:
    done, open_ = api.device(0), api.device(1)
    run = api.create_run(target=3)["run"]
    accepted, wanted = api.task(done), api.task(open_)
    assert api.put(done, accepted).status_code == 202
    spoil(api, run, "{not json")
    digest = digest_of(api, accepted)
    assert lease(api, done, accepted.task_id).status_code == 410
    where = f"/v1/tasks/{accepted.task_id}/outcome"
    assert api.client.get(where, params={"digest": digest}, headers=done).json()["received"] > 0
    assert api.put(done, accepted).status_code == 202
    assert lease(api, open_, wanted.task_id).status_code == 500
    api.client.post(f"/v1/runs/{run}/stop", headers=ADMIN)
    assert lease(api, open_, wanted.task_id).status_code == 410
    assert code(api.put(open_, wanted)) == "stale"


def digest_of(api: Api, task: Any) -> str:
    """The hash of the outcome that `Api.put` sends."""
    return hashlib.sha256(api.fleet.outcome(task).encode()).hexdigest()


@pytest.mark.parametrize(
    "damage",
    [
        'UPDATE runs SET settings = \'{"rounds": 0, "target": 0}\'',
        "UPDATE folds SET state = 'half'",
        "UPDATE assignments SET state = 'half'",
        "DELETE FROM cohorts",
    ],
)
def test_damage_of_a_run_is_not_told_a_device_as_if_its_task_were_gone(api: Api, damage: str) -> None:
    device, done = api.device(0), api.device(1)
    api.create_run(target=3)
    task, accepted = api.task(device), api.task(done)
    assert api.put(done, accepted).status_code == 202
    with api.fleet.state.database.write() as session:
        session.objects.connection().exec_driver_sql(damage)
    assert lease(api, device, task.task_id).status_code == 500
    assert api.put(device, task).status_code == 500
    # What was accepted before stays so, whatever else is damaged.
    where = f"/v1/tasks/{accepted.task_id}/outcome"
    digest = digest_of(api, accepted)
    assert api.client.get(where, params={"digest": digest}, headers=done).json()["received"] > 0
    assert api.put(done, accepted).status_code == 202


def test_damage_of_a_task_concerns_no_other_device(api: Api) -> None:
    device, other = api.device(0), api.device(1)
    api.create_run(target=3)
    task, others = api.task(device), api.task(other)
    with api.fleet.state.database.write() as session:
        session.objects.connection().exec_driver_sql(
            "UPDATE assignments SET state = 'half' WHERE task_id = ?", (others.task_id,)
        )
    assert lease(api, device, task.task_id).status_code == 200
    assert api.put(device, task).status_code == 202


def test_a_device_with_a_task_of_each_of_two_runs_gets_the_other_back(api: Api) -> None:
    device = api.device(0)
    older = api.create_run(target=1, rounds=1, seed=5)["run"]
    first = api.task(device)
    newer = api.create_run(target=1, rounds=1, seed=6)["run"]
    settings = spoil(api, older, "{not json")
    second = api.task(device)
    assert (first.run, second.run) == (older, newer)
    spoil(api, older, settings)
    assert api.put(device, second).status_code == 202
    assert api.task(device).task_id == first.task_id


def test_a_poll_while_a_run_cannot_be_read_does_not_cost_the_device_its_task(api: Api) -> None:
    device = api.device(0)
    run = api.create_run(target=1)["run"]
    task = api.task(device)
    settings = spoil(api, run, "{not json")
    assert poll(api, device).status_code == 204
    spoil(api, run, settings)
    assert api.task(device).task_id == task.task_id


def test_a_decline_calls_the_next_in_line(api: Api, nobody_looks: None) -> None:
    first, second = api.device(0), api.device(1)
    api.create_run(target=1)
    task = api.task(first)
    answers: list[Any] = []
    thread = waiting(api, second, answers)
    declined = Outcome(
        task.task_id, task.base_weights_hash, task.layout_hash, status=OutcomeStatus.DECLINED, reason=Reason.BUSY
    )
    assert api.put(first, task, declined).status_code == 202
    thread.join()
    assert [answer.status_code for answer in answers] == [200]
