"""Files that were kept and are gone or damaged: named, counted, shown, and never a reason to wait for ever."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from edgefl.algorithms import ALGORITHMS
from edgefl_server import run_text
from edgefl_server.aggregation import RunSettings
from edgefl_server.storage import create_run, fail_damaged_runs, next_task, run_status, stop_run, weights_of_round
from edgefl_server.storage.tables import RunRow, VersionRow
from model_files import make_model_file


def gone(path: Path) -> None:
    path.unlink()


def changed(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def cut_off(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-20])


def emptied(path: Path) -> None:
    path.write_bytes(b"")


def another_thing(path: Path) -> None:
    path.unlink()
    path.mkdir()


damages = pytest.mark.parametrize("damage", [gone, changed, cut_off, emptied, another_thing])


def outcome_file(fleet, task) -> Path:
    paths = [fleet.state.outcomes.path(digest) for digest in fleet.state.outcomes]
    return next(path for path in paths if task.task_id.encode() in path.read_bytes())


def folded_bits(fleet, run: str) -> bytes:
    return fleet.state.weights.get(weights_of_round(fleet.state, run, 1)[0])


@damages
def test_a_damaged_outcome_is_left_out_named_and_counted_when_enough_are_left(
    make_fleet: Callable, damage: Callable, caplog: pytest.LogCaptureFixture
) -> None:
    expected = make_fleet("expected")
    devices = expected.add_devices(3)
    run = expected.create_run(target=2, rounds=1)
    for device in devices[:2]:
        expected.finish(device)
    expected.fold()
    bits = folded_bits(expected, run)

    fleet = make_fleet("damaged")
    devices = fleet.add_devices(3)
    run = fleet.create_run(target=3, minimum=2, rounds=1)
    tasks = [fleet.finish(device) for device in devices]
    damage(outcome_file(fleet, tasks[2]))
    assert fleet.fold() is True
    status = run_status(fleet.state, run)
    (entry,) = status["history"]
    assert (status["state"], entry["state"]) == ("done", "done")
    assert (entry["outcomes"]["folded"], entry["outcomes"]["damaged"]) == (2, 1)
    assert tasks[2].task_id in entry["why"]
    assert caplog.text.count(tasks[2].task_id) == 1
    assert "1 damaged" in run_text.status(status)
    assert "1 damaged" in run_text.round_line(entry)  # what `watch` tells
    assert folded_bits(fleet, run) == bits


@damages
def test_a_round_of_which_too_little_is_left_fails_and_the_run_goes_on(fleet, damage: Callable) -> None:
    devices = fleet.add_devices(2)
    run = fleet.create_run(target=2, rounds=2)
    tasks = [fleet.finish(device) for device in devices]
    damage(outcome_file(fleet, tasks[0]))
    fleet.fold()
    first, second = run_status(fleet.state, run)["history"]
    assert (first["state"], second["state"]) == ("failed", "selecting")
    assert tasks[0].task_id in first["why"]
    assert "1 of at least 2 outcomes" in first["why"]
    assert (first["outcomes"]["damaged"], first["outcomes"]["discarded"]) == (1, 1)
    for device in devices:
        fleet.finish(device)
    fleet.fold()
    assert run_status(fleet.state, run)["state"] == "done"


def test_an_outcome_that_says_something_else_than_it_may_is_damaged_too(fleet) -> None:
    devices = fleet.add_devices(2)
    run = fleet.create_run(target=2, minimum=1, rounds=1)
    for device in devices:
        fleet.finish(device)
    with fleet.state.database.write() as session:  # as if a later edgefl asked more of an outcome
        session.get_one(RunRow, run).layout_hash = "0" * 64
    fleet.fold()
    entry = run_status(fleet.state, run)["history"][0]
    assert (entry["state"], entry["outcomes"]["damaged"]) == ("failed", 2)


@pytest.mark.parametrize("number", [errno.EIO, errno.EMFILE, errno.ENOSPC])
def test_a_disk_that_answers_with_an_error_keeps_the_round_waiting_and_nothing_is_lost(
    fleet, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    (device,) = fleet.add_devices(1)
    run = fleet.create_run(target=1, rounds=1)
    fleet.finish(device)

    def broken(self: Path) -> bytes:
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patched:
        patched.setattr(Path, "read_bytes", broken)
        assert fleet.fold() is False
    status = run_status(fleet.state, run)
    assert (status["history"][0]["state"], status["history"][0]["outcomes"]["accepted"]) == ("folding", 1)
    assert os.strerror(number) in status["troubles"][0]
    fleet.clock.now += 5
    fleet.fold()
    assert run_status(fleet.state, run)["state"] == "done"


@damages
@pytest.mark.parametrize("what", ["model file", "weights", "slot"])
@pytest.mark.parametrize("folding", [False, True])
def test_a_run_whose_model_or_weights_are_damaged_fails_with_a_reason_and_others_go_on(
    fleet, damage: Callable, what: str, folding: bool
) -> None:
    (device,) = fleet.add_devices(1)
    run = fleet.create_run(target=1, rounds=1, strategy="scaffold" if what == "slot" else "fedavg")
    assert fail_damaged_runs(fleet.state) is False
    if folding:
        fleet.finish(device)
    settings = RunSettings(rounds=1, target=1)
    other = create_run(fleet.state, make_model_file(seed=3, algorithms=ALGORITHMS), "people", settings)
    with fleet.state.database.read() as session:
        row = session.get_one(VersionRow, (run, 0))
        digests = {"weights": row.weights_hash, "slot": row.slots.get("control", "")}
        digests["model file"] = session.get_one(RunRow, run).model_hash
    store = fleet.state.models if what == "model file" else fleet.state.weights
    path = store.path(digests[what])
    assert path is not None
    damage(path)
    if folding and what != "model file":
        fleet.fold()
    assert fail_damaged_runs(fleet.state) is not (folding and what != "model file")
    status = run_status(fleet.state, run)
    assert status["state"] == "failed"
    assert digests[what] in status["why"]
    assert status["history"][0]["state"] == "failed"
    fleet.finish(device)
    fleet.fold()
    assert run_status(fleet.state, other)["state"] == "done"


def test_files_that_did_not_change_are_read_once(fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    fleet.create_run()
    fail_damaged_runs(fleet.state)
    monkeypatch.setattr(Path, "open", lambda *arguments: pytest.fail("read again"))
    for _ in range(3):
        assert fail_damaged_runs(fleet.state) is False
    assert fleet.state.troubles.of("") == []


def test_an_ended_run_needs_no_file(fleet) -> None:
    run = fleet.create_run()
    stop_run(fleet.state, run)
    for digest in fleet.state.models:
        fleet.state.models.delete(digest)
    assert fail_damaged_runs(fleet.state) is False
    assert run_status(fleet.state, run)["state"] == "stopped"


def test_a_model_file_that_cannot_be_measured_now_costs_the_devices_of_other_runs_nothing(fleet) -> None:
    (device,) = fleet.add_devices(1)
    broken = fleet.create_run(target=1)
    healthy = fleet.create_run(target=1, strategy="fedsgd")
    with fleet.state.database.read() as session:
        model = session.get_one(RunRow, broken).model_hash
    gone(fleet.state.models.path(model))
    task = next_task(fleet.state, device)
    assert task is not None
    assert task.run == healthy
    assert fail_damaged_runs(fleet.state) is True


def test_many_damaged_outcomes_cost_one_more_pass_over_the_round(fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    devices = fleet.add_devices(12)
    run = fleet.create_run(target=12, minimum=1, rounds=1)
    tasks = [fleet.finish(device) for device in devices]
    for task in tasks[::2]:
        changed(outcome_file(fleet, task))
    get, reads = fleet.state.outcomes.get, []
    monkeypatch.setattr(fleet.state.outcomes, "get", lambda digest: reads.append(digest) or get(digest))
    fleet.fold()
    entry = run_status(fleet.state, run)["history"][0]
    assert (entry["outcomes"]["folded"], entry["outcomes"]["damaged"]) == (6, 6)
    assert len(reads) <= 4 * 12
