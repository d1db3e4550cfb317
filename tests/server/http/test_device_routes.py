from __future__ import annotations

import errno
import hashlib
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient

from edgefl.errors import storage_error
from edgefl.wire.messages import CONTENT_TYPE, CONTROL_TYPE, Outcome, OutcomeStatus, Reason, Task
from edgefl_server.http import create_app
from edgefl_server.storage import authenticate, invite
from fake_device import Identity
from model_files import make_model_file

from .conftest import ADMIN, Api, code


def wait_until_folded(api: Api, run: str, number: int = 1) -> None:
    """Folding happens beside the requests."""
    for _ in range(2000):
        if api.status(run)["history"][number - 1]["state"] != "folding":
            return
    raise AssertionError("the round was never folded")


def test_a_poll_may_say_what_the_device_can_do_by_now(api: Api) -> None:
    headers = api.device(0)
    api.create_run()
    for capabilities, status in (({"kinds": []}, 204), ({"kinds": ["train"]}, 200)):
        poll = {"wait": 0, "capabilities": capabilities}
        assert api.client.post("/v1/tasks/next", json=poll, headers=headers).status_code == status
    answer = api.client.post("/v1/tasks/next", json={"capabilities": {"x": "y" * 5000}}, headers=headers)
    assert (answer.status_code, code(answer)) == (422, "invalid_setting")


def test_a_public_key_comes_with_the_enrolment_or_later_with_a_poll(api: Api) -> None:
    key = "MCowBQYDK2VuAyEAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA{}="
    me = Identity.number(0)

    def kept() -> str | None:
        return authenticate(api.fleet.state, me.device, me.secret).public_key

    assert api.enrol(0, public_key=key.format("A")).status_code == 201
    assert kept() == key.format("A")
    headers = api.device(0)
    for said, status in ((None, 204), (key.format("E"), 204), ("no key", 422)):
        answer = api.client.post("/v1/tasks/next", json={"wait": 0, "public_key": said}, headers=headers)
        assert answer.status_code == status
    assert code(answer) == "invalid_setting"
    assert kept() == key.format("E")


def test_enrolling_answers_201_then_200(api: Api) -> None:
    assert api.enrol(0).status_code == 201
    answer = api.enrol(0)
    assert answer.status_code == 200
    assert answer.json() == {"device_id": Identity.number(0).device}


@pytest.mark.parametrize(
    ("change", "status", "expected"),
    [
        ({"token": "wrong"}, 401, "wrong_token"),
        ({"token": ""}, 401, "wrong_token"),
        ({"population": "others"}, 403, "wrong_population"),
        ({"device_id": "XYZ"}, 422, "invalid_setting"),
        ({"secret_hash": None}, 422, "malformed"),
        ({"capabilities": []}, 422, "malformed"),
        ({"public_key": "A" * 700}, 422, "invalid_setting"),
        ({"public_key": 7}, 422, "malformed"),
    ],
)
def test_enrolment_that_does_not_fit_is_refused(api: Api, change: dict, status: int, expected: str) -> None:
    answer = api.enrol(0, **change)
    assert (answer.status_code, code(answer)) == (status, expected)


def test_a_taken_identity_is_a_conflict(api: Api) -> None:
    api.enrol(0)
    answer = api.enrol(0, secret_hash="0" * 64)
    assert (answer.status_code, code(answer)) == (409, "identity_taken")


@pytest.mark.parametrize("header", [None, "", "Bearer", "Bearer x", "Bearer x.y", "Basic abc", "Bearer ä"])
@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/v1/tasks/next"),
        ("POST", "/v1/tasks/abc/lease"),
        ("PUT", "/v1/tasks/abc/outcome"),
        ("GET", f"/v1/models/{'0' * 64}"),
        ("GET", f"/v1/weights/{'0' * 64}"),
    ],
)
def test_a_device_that_is_not_enrolled_gets_401(api: Api, method: str, path: str, header: str | None) -> None:
    headers = {} if header is None else {"Authorization": header.encode()}
    answer = api.client.request(method, path, headers=headers)
    assert (answer.status_code, code(answer)) == (401, "unknown_device")
    assert answer.json()["error"]["hint"] == "Ask the operator for a new invitation."


def test_work_is_a_task_message_and_the_same_one_until_it_is_done(api: Api) -> None:
    device, run = api.device(0), api.create_run()
    answer = api.client.post("/v1/tasks/next", json={"wait": 0}, headers=device)
    assert answer.headers["content-type"] == CONTENT_TYPE
    task = Task.decode(answer.content)
    assert task.run == run["run"]
    assert api.task(device) == task


def test_a_poll_without_a_body_does_not_wait(api: Api) -> None:
    answer = api.client.post("/v1/tasks/next", headers=api.device(0))
    assert answer.status_code == 204


@pytest.mark.parametrize("body", ['{"wait": -1}', '{"wait": "x"}', '{"wait": NaN}', "[1]", "{", "[" * 20000])
def test_a_poll_that_is_no_json_object_is_refused(api: Api, body: str) -> None:
    device = api.device(0)
    answer = api.client.post("/v1/tasks/next", content=body, headers={**device, "Content-Type": "application/json"})
    assert (answer.status_code in (400, 422), code(answer)) == (True, "malformed")


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (b"{", "application/json"),
        (b"hello", "application/json"),
        (b"\xff", "application/json"),
        (b"[1]", "application/json"),
        (b"", "application/json"),
        (b'{"population": "people"}', "text/plain"),
    ],
)
def test_a_body_that_is_no_json_object_is_said_to_be_none(api: Api, body: bytes, kind: str) -> None:
    headers = {"Authorization": f"Bearer {api.fleet.token}", "Content-Type": kind}
    answer = api.client.post("/v1/devices", content=body, headers=headers)
    assert code(answer) == "malformed"
    assert answer.json()["error"]["message"].startswith("The body is no JSON")


def test_no_work_says_when_to_come_back_and_how_many_runs_are_active(api: Api) -> None:
    device = api.device(0)
    answer = api.client.post("/v1/tasks/next", json={"wait": 0}, headers=device)
    assert (answer.status_code, answer.content) == (204, b"")
    assert answer.headers["EdgeFL-Active-Runs"] == "0"
    assert 5 <= int(answer.headers["Retry-After"]) <= 15
    api.create_run()
    api.task(api.device(1))
    answer = api.client.post("/v1/tasks/next", json={"wait": 0}, headers=device)
    assert answer.headers["EdgeFL-Active-Runs"] == "1"
    assert 1 <= int(answer.headers["Retry-After"]) <= 3


def test_a_waiting_device_is_woken_by_a_new_run(api: Api) -> None:
    device = api.device(0)
    api.create_run(target=1, rounds=1)
    other = api.device(1)
    api.task(other)
    results: list[Task] = []
    # The first run is busy with another device, so that the poll waits.
    waiting = threading.Thread(target=lambda: results.append(api.task(device, wait=30)))
    waiting.start()
    run = api.create_run()
    waiting.join(25)
    assert [task.run for task in results] == [run["run"]]


def wait_for_waiting(api: Api, count: int) -> None:
    """Until so many devices are in line."""
    line = api.client.app.state.context.work._line("people")  # type: ignore[attr-defined]
    for _ in range(4000):
        if len(line.waiting) == count:
            return
        time.sleep(0.005)
    raise AssertionError(f"{len(line.waiting)} wait")


def test_a_device_that_ends_with_the_work_learns_at_once_that_the_last_run_has_ended(api: Api) -> None:
    device, run = api.device(0), api.create_run(target=1, rounds=1)
    api.task(api.device(1))
    answers = []
    poll = {"wait": 30}
    waiting = threading.Thread(
        target=lambda: answers.append(api.client.post("/v1/tasks/next", json=poll, headers=device))
    )
    waiting.start()
    wait_for_waiting(api, 1)
    api.client.post(f"/v1/runs/{run['run']}/stop", headers=ADMIN)
    waiting.join(25)
    assert [answer.headers["EdgeFL-Active-Runs"] for answer in answers] == ["0"]
    # And soon when there was none.
    answer = api.client.post("/v1/tasks/next", json=poll, headers=device)
    assert (answer.headers["EdgeFL-Active-Runs"], answer.elapsed.total_seconds() < 20) == ("0", True)


def test_devices_that_wait_without_a_run_are_all_called_by_a_new_one_as_far_as_it_has_places(api: Api) -> None:
    results: list[Task] = []
    threads = []
    for index in range(3):  # one after the other, as the first comes first
        device = api.device(index)
        threads.append(threading.Thread(target=lambda device=device: results.append(api.task(device, wait=30))))
        threads[-1].start()
        wait_for_waiting(api, index + 1)
    first = api.create_run(target=2)
    for thread in threads[:2]:
        thread.join(25)
    assert [task.run for task in results] == [first["run"]] * 2
    wait_for_waiting(api, 1)
    api.client.post(f"/v1/runs/{first['run']}/stop", headers=ADMIN)
    second = api.create_run(target=1)
    threads[2].join(25)
    assert [task.run for task in results[2:]] == [second["run"]]


def test_a_device_that_was_held_in_line_is_told_to_be_there_again_soon(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgefl_server.http.device_routes.LONGEST_WAIT_SECONDS", 1.01)
    answer = api.client.post("/v1/tasks/next", json={"wait": 30, "until_idle": False}, headers=api.device(0))
    assert (answer.status_code, answer.headers["EdgeFL-Active-Runs"]) == (204, "0")
    assert 1 <= int(answer.headers["Retry-After"]) <= 3


@pytest.mark.parametrize(
    ("asked", "status"),
    [
        ("bytes=99999999-", 416),
        ("bytes=-0", 416),
        ("bytes", 400),
        ("rows=1-", 400),
        ("bytes=5-2", 400),
        ("bytes=", 400),
        ("bytes=-", 400),
        ("bytes=0-1,4-5", 400),
        ("bytes=0-1, 4-5", 400),
        ("bytes=-1,-2", 400),
        ("bytes=+1-", 400),
    ],
)
def test_a_range_that_does_not_fit_is_refused_as_everything_is(api: Api, asked: str, status: int) -> None:
    device, run = api.device(0), api.create_run()["run"]
    model = f"/v1/models/{api.task(device).model_hash}"
    for path, headers in ((model, device), (f"/v1/runs/{run}/weights", ADMIN)):
        answer = api.client.get(path, headers={**headers, "Range": asked})
        assert (answer.status_code, code(answer)) == (status, "bad_range")
        assert answer.headers["content-type"] == CONTROL_TYPE
    size = len(api.client.get(model, headers=device).content)
    refused = api.client.get(model, headers={**device, "Range": asked})
    assert refused.headers.get("Content-Range") == (f"bytes */{size}" if status == 416 else None)


def test_the_model_and_the_weights_of_an_open_task_can_be_fetched_whole_or_in_part(api: Api) -> None:
    device = api.device(0)
    api.create_run()
    task = api.task(device)
    model = api.client.get(f"/v1/models/{task.model_hash}", headers=device)
    assert model.content == make_model_file()
    assert hashlib.sha256(model.content).hexdigest() == task.model_hash
    assert model.headers["ETag"] == f'"{task.model_hash}"'
    assert "immutable" in model.headers["Cache-Control"]
    weights = api.client.get(f"/v1/weights/{task.base_weights_hash}", headers=device)
    assert hashlib.sha256(weights.content).hexdigest() == task.base_weights_hash
    rest = api.client.get(f"/v1/models/{task.model_hash}", headers={**device, "Range": "bytes=100-"})
    assert rest.status_code == 206
    assert rest.content == model.content[100:]
    assert rest.headers["Content-Range"] == f"bytes 100-{len(model.content) - 1}/{len(model.content)}"
    for asked, expected in (("bytes=3-9", model.content[3:10]), ("bytes=-7", model.content[-7:])):
        part = api.client.get(f"/v1/models/{task.model_hash}", headers={**device, "Range": asked})
        assert (part.status_code, part.content) == (206, expected)
    beyond = api.client.get(f"/v1/models/{task.model_hash}", headers={**device, "Range": "bytes=99999999-"})
    assert beyond.status_code == 416
    known = api.client.get(f"/v1/models/{task.model_hash}", headers={**device, "If-None-Match": model.headers["ETag"]})
    assert (known.status_code, known.content) == (304, b"")


def test_nothing_can_be_fetched_without_an_open_task_that_names_it(api: Api) -> None:
    device, stranger = api.device(0), api.device(1)
    api.create_run()
    task = api.task(device)
    for path in (f"/v1/models/{task.model_hash}", f"/v1/weights/{task.base_weights_hash}", f"/v1/models/{'0' * 64}"):
        answer = api.client.get(path, headers=stranger)
        assert (answer.status_code, code(answer)) == (404, "not_found")
    outcome_hash = hashlib.sha256(api.fleet.outcome(task).encode()).hexdigest()
    api.put(device, task)
    for path in (f"/v1/models/{task.model_hash}", f"/v1/weights/{outcome_hash}"):
        assert api.client.get(path, headers=device).status_code == 404


@pytest.mark.parametrize("name", ["..%2f..%2foperator.json", "a" * 63, "A" * 64, "..", "%00", "a" * 64 + "%0a"])
def test_a_path_that_is_no_hash_is_refused(api: Api, name: str) -> None:
    device = api.device(0)
    for kind in ("models", "weights"):
        answer = api.client.get(f"/v1/{kind}/{name}", headers=device)
        assert answer.status_code in (404, 405, 422)
        code(answer)


def test_an_outcome_is_accepted_and_so_is_its_repetition_after_the_run_has_ended(api: Api) -> None:
    device, run = api.device(0), api.create_run(rounds=1)["run"]
    task = api.task(device)
    assert api.put(device, task).status_code == 202
    wait_until_folded(api, run)
    assert api.status(run)["state"] == "done"
    assert api.put(device, task).status_code == 202
    assert api.status(run)["history"][0]["outcomes"]["folded"] == 1


def test_other_bytes_for_an_answered_task_are_refused(api: Api) -> None:
    device = api.device(0)
    api.create_run()
    task = api.task(device)
    api.put(device, task)
    answer = api.put(device, task, replace(api.fleet.outcome(task), num_examples=77))
    assert (answer.status_code, code(answer)) == (422, "conflicting_outcome")


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"task_id": "other"}, "wrong_task"),
        ({"base_weights_hash": "0" * 64}, "wrong_base_weights"),
        ({"layout_hash": "0" * 64}, "wrong_layout"),
        ({"num_examples": 0}, "bad_num_examples"),
        ({"sections": ()}, "malformed"),
    ],
)
def test_an_outcome_that_does_not_fit_is_refused_with_its_reason(api: Api, change: dict, expected: str) -> None:
    device, run = api.device(0), api.create_run()["run"]
    task = api.task(device)
    data = replace(api.fleet.outcome(task), **change).encode()
    answer = api.client.put(f"/v1/tasks/{task.task_id}/outcome", content=data, headers=device)
    assert (answer.status_code, code(answer)) == (422, expected)
    assert api.status(run)["history"][0]["outcomes"]["accepted"] == 0


def test_bytes_that_are_no_outcome_are_malformed(api: Api) -> None:
    device = api.device(0)
    api.create_run()
    task = api.task(device)
    good = api.fleet.outcome(task).encode()
    for data in (b"", b"hello", good[:50], task.encode(), bytes(len(good))):
        answer = api.client.put(f"/v1/tasks/{task.task_id}/outcome", content=data, headers=device)
        assert (answer.status_code, code(answer)) == (422, "malformed")


def test_surplus_says_when_to_come_back(api: Api) -> None:
    first, second = api.device(0), api.device(1)
    api.create_run(target=1, over_selection=2)
    mine, late = api.task(first), api.task(second)
    outcome = api.fleet.outcome(late)
    api.put(first, mine)
    answer = api.put(second, late, outcome)
    assert (answer.status_code, code(answer)) == (409, "surplus")
    assert int(answer.headers["Retry-After"]) <= 2


def test_a_stopped_runs_outcome_is_stale(api: Api) -> None:
    device, run = api.device(0), api.create_run()["run"]
    task = api.task(device)
    api.client.post(f"/v1/runs/{run}/stop", headers=ADMIN)
    answer = api.put(device, task)
    assert (answer.status_code, code(answer)) == (409, "stale")
    lease = api.client.post(f"/v1/tasks/{task.task_id}/lease", headers=device)
    assert (lease.status_code, code(lease)) == (410, "abandoned")


def test_a_task_of_another_device_does_not_exist(api: Api) -> None:
    device, stranger = api.device(0), api.device(1)
    api.create_run()
    task = api.task(device)
    for answer in (
        api.put(stranger, task),
        api.client.post(f"/v1/tasks/{task.task_id}/lease", headers=stranger),
        api.client.post(f"/v1/tasks/{'0' * 30}/lease", headers=device),
        api.client.post("/v1/tasks/No.task-of_any-form/lease", headers=device),
        api.client.put(f"/v1/tasks/{'z' * 128}/outcome", content=b"x", headers=device),
        api.client.get("/v1/tasks/nothing/outcome", params={"digest": "0" * 64}, headers=device),
    ):
        assert (answer.status_code, code(answer)) == (404, "unknown_task")


def test_a_lease_can_be_renewed(api: Api) -> None:
    device = api.device(0)
    api.create_run(lease_seconds=45)
    answer = api.client.post(f"/v1/tasks/{api.task(device).task_id}/lease", headers=device)
    assert answer.json() == {"lease_seconds": 45.0}


def test_an_outcome_larger_than_its_run_can_need_is_too_large(api: Api) -> None:
    device, run = api.device(0), api.create_run()["run"]
    task = api.task(device)
    answer = api.client.put(f"/v1/tasks/{task.task_id}/outcome", content=bytes(2 << 20), headers=device)
    assert (answer.status_code, code(answer)) == (413, "too_large")
    assert api.put(device, task).status_code == 202
    assert api.status(run)["history"][0]["outcomes"]["failed"] == 0


def test_a_full_disk_answers_507_and_keeps_nothing(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    device, run = api.device(0), api.create_run(target=2)["run"]
    task = api.task(device)

    def full(file: Path, digest: str) -> None:
        raise storage_error(OSError(errno.ENOSPC, "No space left on device"), "write", "/secret/path")

    with monkeypatch.context() as patched:
        patched.setattr(api.fleet.state.outcomes, "adopt", full)
        answer = api.put(device, task)
    assert (answer.status_code, code(answer)) == (507, "storage_full")
    assert "/secret" not in answer.text
    assert int(answer.headers["Retry-After"]) > 0
    assert api.status(run)["history"][0]["outcomes"]["accepted"] == 0
    assert api.put(device, task).status_code == 202


def test_giving_up_lets_another_waiting_device_work(api: Api) -> None:
    first, second = api.device(0), api.device(1)
    api.create_run(target=1, max_failures=3)
    task = api.task(first)
    results: list[Task] = []
    waiting = threading.Thread(target=lambda: results.append(api.task(second, wait=30)))
    waiting.start()
    declined = Outcome(
        task.task_id,
        task.base_weights_hash,
        task.layout_hash,
        status=OutcomeStatus.DECLINED,
        reason=Reason.BUSY,
    )
    assert api.put(first, task, declined).status_code == 202
    waiting.join(25)
    assert [each.cohort for each in results] == [1]


def test_a_run_goes_through_its_rounds_to_its_end(api: Api) -> None:
    devices = [api.device(index) for index in range(3)]
    run = api.create_run(target=3, rounds=3)["run"]
    for number in (1, 2, 3):
        for device in devices:
            task = api.task(device, wait=20)
            assert task.cohort == number
            assert api.put(device, task).status_code == 202
        wait_until_folded(api, run, number)
    status = api.status(run)
    assert status["state"] == "done"
    assert [entry["outcomes"]["folded"] for entry in status["history"]] == [3, 3, 3]
    weights = api.client.get(f"/v1/runs/{run}/weights", headers=ADMIN).content
    assert np.isfinite(np.frombuffer(weights, "<f4")).all()


def test_every_answer_to_a_device_and_every_error_says_that_it_is_edgefls(api: Api) -> None:
    device = api.device(0)
    api.create_run()
    task = api.task(device)
    lease = api.client.post(f"/v1/tasks/{task.task_id}/lease", headers=device)
    answers = [api.enrol(1), api.enrol(1), lease, api.put(device, task)]
    answers += [
        api.client.get("/nowhere"),
        api.client.put("/v1/devices"),
        api.client.post("/v1/devices", content=b"{", headers={"Content-Type": "application/json"}),
        api.client.post("/v1/devices", content=bytes(1 << 20)),
        api.client.post("/v1/tasks/next"),
        api.client.get("/v1/runs"),
        api.client.put("/v1/tasks/abc/outcome", content=b"x", headers=device),
    ]
    assert [answer.status_code for answer in answers[:4]] == [201, 200, 200, 202]
    assert {answer.headers["content-type"] for answer in answers} == {CONTROL_TYPE}
    for answer in answers[4:]:
        code(answer)


def test_a_device_learns_which_of_the_runs_that_it_remembers_are_over(api: Api) -> None:
    device, stopped, active = api.device(0), api.create_run()["run"], api.create_run()["run"]
    api.client.post(f"/v1/runs/{stopped}/stop", headers=ADMIN)
    for status in (200, 200):
        body = {"remembers": [active, stopped, "unknown"]}
        answer = api.client.post("/v1/tasks/next", json=body, headers=device)
        assert answer.status_code == status
        assert answer.headers["EdgeFL-Ended-Runs"] == f"{stopped},unknown"
    api.client.post(f"/v1/runs/{active}/stop", headers=ADMIN)
    answer = api.client.post("/v1/tasks/next", json={"remembers": [active]}, headers=device)
    assert (answer.status_code, answer.headers["EdgeFL-Ended-Runs"]) == (204, active)
    for body in ({}, {"remembers": []}):
        assert "EdgeFL-Ended-Runs" not in api.client.post("/v1/tasks/next", json=body, headers=device).headers


def test_a_run_of_another_population_is_over_for_a_device(api: Api) -> None:
    invite(api.fleet.state, "others")
    device, run = api.device(0), api.create_run(population="others")["run"]
    answer = api.client.post("/v1/tasks/next", json={"remembers": [run]}, headers=device)
    assert answer.headers["EdgeFL-Ended-Runs"] == run


@pytest.mark.parametrize("remembers", [["a"] * 65, ["a" * 65], ["a\r\nX: y"], ["a,b"], [""], "abc", [7]])
def test_what_no_device_remembers_is_refused(api: Api, remembers: object) -> None:
    answer = api.client.post("/v1/tasks/next", json={"remembers": remembers}, headers=api.device(0))
    assert (answer.status_code, code(answer)) == (422, "malformed")


def test_a_device_that_waits_and_one_that_has_a_task_read_as_much_as_they_need(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = api.device(0), api.device(1)
    api.create_run(target=1)
    task = api.task(first)
    api.client.post("/v1/tasks/next", headers=second)
    read, reads = api.fleet.state.database.read, []

    def counted() -> Any:
        reads.append(1)
        return read()

    monkeypatch.setattr(api.fleet.state.database, "read", counted)
    for _ in range(50):
        assert api.client.post("/v1/tasks/next", headers=second).status_code == 204
    assert len(reads) < 25  # what all that wait share, and the clock that looks for deadlines
    assert api.task(first) == task


def test_after_a_restart_a_device_gets_its_open_task_though_there_is_no_place(api: Api) -> None:
    device = api.device(0)
    api.create_run(target=1)
    task = api.task(device)
    with TestClient(create_app(api.fleet.state, "operators-token")) as restarted:
        answer = restarted.post("/v1/tasks/next", headers=device)
    assert Task.decode(answer.content) == task
