"""Whatever a device says of itself, and whatever comes as data: an answer, never an error of the server's."""

from __future__ import annotations

import io
import json
import random
import time
import zipfile

import numpy as np
import pytest

from edgefl.algorithms import SUMMARY
from edgefl.errors import CodecError
from edgefl.summaries import ArraySummary, Summary
from edgefl.wire.messages import Outcome, Section
from edgefl_server.aggregation import SettingError
from edgefl_server.storage import keep_data
from fake_device import Identity
from model_files import make_model_file
from server.http.conftest import ADMIN, code

HUGE, DEEP = "9" * 5000, "[" * 100_000 + "]" * 100_000
TRICKS = [
    '"\\ud800"',
    '"\\u0000\\u001b[2J"',
    '"<script>alert(1)</script>"',
    "NaN",
    "1e999",
    "-1",
    "1e308",
    "true",
    "null",
    "[[]]",
    "{}",
    '[1, "a"]',
    "18446744073709551616",
    "9" * 400,
]
KEYS = (
    "protocol",
    "kinds",
    "codecs",
    "runtimes",
    "memory_bytes",
    "payloads",
    "weightings",
    "<b>\\u0007</b>",
    "\\ud800",
)


def enrol(api, capabilities: str, number: int = 1):
    identity = Identity.number(number)
    body = json.dumps({"device_id": identity.device, "secret_hash": identity.secret_hash, "population": "people"})
    body = f'{body[:-1]}, "capabilities": {capabilities}}}'
    headers = {"Authorization": f"Bearer {api.fleet.token}", "Content-Type": "application/json"}
    return api.client.post("/v1/devices", content=body.encode(), headers=headers)


@pytest.mark.parametrize("trick", TRICKS)
def test_a_device_that_says_nonsense_of_itself_is_refused_or_works_and_ends_nothing_of_others(api, trick) -> None:
    answers = [enrol(api, f'{{"{key}": {trick}}}', number) for number, key in enumerate(KEYS, 2)]
    assert {answer.status_code for answer in answers} <= {201, 400, 422}
    run = api.create_run(rounds=1, target=1, selection="capable", selection_memory_bytes=5)["run"]
    for number, answer in enumerate(answers, 2):
        if answer.status_code == 201:
            asked = api.client.post("/v1/tasks/next", json={}, headers=Identity.number(number).authorization)
            assert asked.status_code in (200, 204)
            if asked.status_code == 200:
                break
    api.status(run)
    assert api.client.get("/v1/runs", headers=ADMIN).status_code == 200


@pytest.mark.parametrize(
    "capabilities",
    [f'{{"memory_bytes": {HUGE}}}', f'{{"kinds": {DEEP}}}', '{"a": "' + "b" * 100_000 + '"}', "5", "[]", "{"],
)
def test_what_is_too_large_too_deep_or_no_object_is_refused(api, capabilities: str) -> None:
    answer = enrol(api, capabilities)
    assert answer.status_code in (400, 413, 422)
    code(answer)
    headers = {**api.device(1), "Content-Type": "application/json"}
    polled = api.client.post("/v1/tasks/next", content=f'{{"capabilities": {capabilities}}}'.encode(), headers=headers)
    assert polled.status_code in (400, 413, 422)
    code(polled)


@pytest.mark.parametrize(
    "rounds", ["0", "-1", "1000000", "9" * 30, "-" + "9" * 400, HUGE, "1.5", "many", "nan", "", "１２"]
)
def test_an_absurd_number_of_further_rounds_is_refused_and_the_run_is_as_it_was(api, rounds: str) -> None:
    run = api.create_run(rounds=2)["run"]
    answer = api.client.post(f"/v1/runs/{run}/continue", params={"rounds": rounds}, headers=ADMIN)
    assert answer.status_code == 422, answer.text
    code(answer)
    assert api.status(run)["rounds"] == 2


def npz() -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, x=np.arange(12, dtype=np.float32).reshape(4, 3), y=np.arange(4))
    return buffer.getvalue()


def archive(name: str, content: bytes, **more) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", **more) as file:
        file.writestr(name, content)
    return buffer.getvalue()


def damaged(seed: int) -> bytes:
    random_, data = random.Random(seed), bytearray(npz())
    for _ in range(random_.randint(1, 30)):
        data[random_.randrange(len(data))] = random_.randrange(256)
    return bytes(data[: random_.choice([len(data), len(data), random_.randrange(len(data))])])


RUBBISH = {
    "nothing": b"",
    "no archive": b"hello",
    "a model": make_model_file(),
    "a path": archive("../../x.npy", b"x"),
    "no array": archive("x.npy", b"\x93NUMPY\xff\xff rubbish"),
    "unfolding": archive("x.npy", bytes(50_000_000), compression=zipfile.ZIP_DEFLATED),
    "a name": archive("\x1b[2J<b>" * 50 + ".npy", b"x"),
    "of another version": damaged(47),
    **{f"damaged {seed}": damaged(seed) for seed in range(3)},
}


@pytest.mark.parametrize("kind", RUBBISH)
@pytest.mark.parametrize("path", ["/v1/data", "/v1/initial-weights", "/v1/runs?population=people&rounds=1&target=1"])
def test_rubbish_in_the_place_of_a_file_is_refused_or_kept_and_never_an_error_of_the_server(api, path, kind) -> None:
    answer = api.client.post(path, content=RUBBISH[kind], headers=ADMIN)
    assert answer.status_code in (201, 400, 422), answer.text
    if answer.status_code != 201:
        code(answer)
        assert len(answer.text) < 2000
        assert answer.text.isprintable()


def test_however_an_archive_is_damaged_it_is_refused_as_one_or_kept(fleet) -> None:
    refused = 0
    for seed in range(2000):
        try:
            keep_data(fleet.state, damaged(seed))
        except SettingError:
            refused += 1
    assert 0 < refused < 2000


@pytest.mark.parametrize("change", [{"weights": "0" * 64}, {"evaluate_on": "../x"}])
def test_a_run_on_files_that_are_not_there_is_refused(api, change) -> None:
    settings = {"population": "people", "rounds": 2, "target": 1, **change}
    answer = api.client.post("/v1/runs", params=settings, content=make_model_file(), headers=ADMIN)
    assert answer.status_code == 422, answer.text
    code(answer)


def summary(rows: int = 4, **change) -> bytes:
    arrays = {
        "x": ArraySummary.of([np.ones((rows, 3), np.float32)], (3,), whole=False).to_json(),
        "y": ArraySummary.of([np.ones(rows, np.int32)], (), whole=True).to_json(),
    }
    document = json.loads(Summary(rows).encode())
    arrays["x"].update(change)
    return json.dumps({**document, "arrays": arrays}).encode()


ABSURD = [
    {"sketch": [[[10**18, 4]]] * 3},
    {"sketch": [[[-(10**400), 4]]] * 3},
    {"sketch": [[[1, 10**400]]] * 3},
    {"sketch": [[[1, -4], [2, 8]]] * 3},
    {"sketch": [[[1, 2], [1, 2]]] * 3},
    {"sketch": [[[1.5, 4]]] * 3},
    {"sketch": [[["a", 4]]] * 3},
    {"sketch": [[[True, 4]]] * 3},
    {"sketch": [{"1": 4}] * 3},
    {"sketch": "abc"},
    {"sketch": [[[1]]] * 3},
    {"sketch": None},
    {"sketch": [[[k, 1] for k in range(100_000)]] * 3},
    {"values": [[2**70, 12]]},
    {"values": [["<b>", 12]]},
    {"shape": [2**31] * 50},
    {"shape": [3] * 10_000},
    {"shape": [-3]},
    {"count": 2**60},
    {"sums": [1e308] * 3},
    {"sums": ["nan"] * 3},
    {"sums": [[4.0]] * 3},
    {"low": [None] * 3},
    {"high": [10**400] * 3},
]


@pytest.mark.parametrize("change", ABSURD)
def test_a_summary_with_absurd_numbers_is_none(change) -> None:
    assert Summary.decode(summary()).rows == 4
    with pytest.raises(CodecError):
        Summary.decode(summary(**change))


def test_who_sends_absurd_summaries_keeps_nobody_else_from_counting(api) -> None:
    api.fleet.add_devices(2)
    run = api.create_run(kind="statistics", rounds=1, target=1, over_selection=2, shown_from=1)["run"]
    bad, good = (Identity.number(number).authorization for number in range(2))
    for change in ABSURD[:3]:
        refused = send(api, bad, summary(**change))
        assert (refused.status_code, code(refused)) == (422, "malformed")
    assert send(api, good, summary()).status_code == 202
    while (status := api.status(run))["state"] == "active":
        time.sleep(0.05)
    assert status["history"][0]["findings"]["statistics"]["rows"] == 4


def send(api, headers, content: bytes):
    """A device's answer to the task that it gets."""
    task = api.task(headers)
    said = {"task_id": task.task_id, "base_weights_hash": task.base_weights_hash, "layout_hash": task.layout_hash}
    outcome = Outcome(**said, num_examples=4, sections=(Section.of_bytes(SUMMARY, content),))
    return api.put(headers, task, outcome)
