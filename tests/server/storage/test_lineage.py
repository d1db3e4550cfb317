"""Where versions come from, how they differ, going back to one, and beginning with weights from elsewhere."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from edgefl.algorithms import ALGORITHMS
from edgefl.errors import EdgeflError, InvalidSettingError, RunError
from edgefl.wire.messages import MetricState, Reason
from edgefl_server.aggregation import RunLog, RunSettings
from edgefl_server.storage import (
    create_run,
    diff_versions,
    keep_weights,
    next_task,
    roll_back,
    run_history,
    run_log,
    run_status,
    stop_run,
    weights_of_round,
)
from edgefl_server.storage.continuing import continue_run
from model_files import default_parameters, make_model_file


def rounds(fleet, devices, count):
    for _ in range(count):
        for device in devices:
            fleet.finish(device)
        fleet.fold()


def test_a_history_says_what_each_version_came_from(fleet) -> None:
    devices = fleet.add_devices(2)
    run = fleet.create_run(rounds=9)
    rounds(fleet, devices, 2)
    first, second, third = run_history(fleet.state, run)["versions"]
    assert (first["by"], first["parent"], first["devices"], first["bytes_up"]) == ("start", None, None, None)
    assert [each["parent"] for each in (second, third)] == [0, 1]
    assert (second["by"], second["round"], second["devices"], second["outcomes"]) == ("fold", 1, 2, 2)
    assert second["num_examples"] == run_status(fleet.state, run)["history"][0]["num_examples"]
    assert second["bytes_up"] > 2 * 4 * 16
    assert second["made_at"] == fleet.clock.now
    assert third["weights_hash"] == weights_of_round(fleet.state, run, 2)[0]


def test_a_device_that_sends_twice_to_a_buffer_counts_once_among_its_devices(fleet) -> None:
    devices = fleet.add_devices(2)
    run = fleet.create_run(schedule="buffered", target=3, concurrency=2, rounds=2)
    for index in (0, 0, 1):
        fleet.finish(devices[index])
    fleet.fold()
    made = run_history(fleet.state, run)["versions"][1]
    assert (made["outcomes"], made["devices"]) == (3, 2)


def test_a_difference_is_said_for_each_parameter(fleet) -> None:
    devices = fleet.add_devices(2)
    run = fleet.create_run(rounds=9)
    rounds(fleet, devices, 1)
    found = diff_versions(fleet.state, run, 0, 1)
    old, new = (
        np.frombuffer(fleet.state.weights.get(weights_of_round(fleet.state, run, number)[0]), "<f4").astype(float)
        for number in (0, 1)
    )
    assert found["norm"] == pytest.approx(np.linalg.norm(old))
    assert found["difference"] == pytest.approx(np.linalg.norm(new - old))
    assert found["largest"] == pytest.approx(np.abs(new - old).max())
    squares = sum(each["difference"] ** 2 for each in found["parameters"])
    assert squares == pytest.approx(found["difference"] ** 2)
    assert diff_versions(fleet.state, run, 1, 1)["difference"] == 0
    with pytest.raises(RunError, match="has no version 7"):
        diff_versions(fleet.state, run, 0, 7)


def test_a_run_that_is_rolled_back_goes_on_from_the_earlier_version_and_says_so(fleet) -> None:
    devices = fleet.add_devices(3)
    run = fleet.create_run(rounds=3)
    rounds(fleet, devices[:2], 2)
    open_one, other = fleet.task(devices[0]), fleet.task(devices[1])
    fleet.accept(devices[1], fleet.outcome(other))
    assert roll_back(fleet.state, run, 1) == run
    status = run_status(fleet.state, run)
    assert [entry["state"] for entry in status["history"]] == ["done", "done", "failed", "selecting"]
    assert status["history"][2]["why"] == "rolled back to version 1"
    assert status["history"][2]["outcomes"]["discarded"] == 1
    assert (status["rounds"], status["weights_hash"]) == (4, weights_of_round(fleet.state, run, 1)[0])
    with pytest.raises(EdgeflError):
        fleet.accept(devices[0], fleet.outcome(open_one))
    again = fleet.task(devices[2])
    assert (again.version, again.base_weights_hash) == (3, status["weights_hash"])
    fleet.accept(devices[2], fleet.outcome(again))
    fleet.finish(devices[0])
    fleet.fold()
    versions = run_history(fleet.state, run)["versions"]
    assert [(each["by"], each["parent"]) for each in versions[2:]] == [("fold", 1), ("rollback", 1), ("fold", 3)]
    assert run_status(fleet.state, run)["state"] == "done"
    assert run_log(fleet.state, run)["rollbacks"] == {"3": 1}
    assert weights_of_round(fleet.state, run, None)[0] == versions[4]["weights_hash"]


def test_a_buffer_gets_back_all_rounds_that_a_rollback_takes_from_it(fleet) -> None:
    devices = fleet.add_devices(2)
    run = fleet.create_run(rounds=2, target=1, schedule="buffered", strategy="fedbuff")
    fleet.finish(devices[0])
    fleet.finish(devices[1])  # two rounds are full and not merged, a third one is gathered
    roll_back(fleet.state, run, 0)
    assert run_status(fleet.state, run)["rounds"] == 5
    for _ in range(2):
        fleet.finish(devices[0])
        fleet.fold()
    status = run_status(fleet.state, run)
    assert status["state"] == "done"
    assert [entry["state"] for entry in status["history"]][3:5] == ["done", "done"]


def test_rollbacks_are_no_failed_rounds(fleet) -> None:
    (device,) = fleet.add_devices(1)
    run = fleet.create_run(rounds=9, target=1, max_failures=1)
    rounds(fleet, [device], 1)
    for version in (0, 1):
        roll_back(fleet.state, run, version)
    fleet.give_up(device, Reason.NO_DATA)
    assert run_status(fleet.state, run)["state"] == "active"


def test_patience_knows_nothing_of_versions_that_were_gone_back_from(fleet) -> None:
    (device,) = fleet.add_devices(1)
    run = fleet.create_run(rounds=9, target=1, patience=2)

    def round_with(loss: float) -> None:
        task = fleet.task(device)
        outcome = fleet.outcome(task)
        rows = float(outcome.num_examples)
        metrics = (MetricState("loss_sum", (loss * rows,)), MetricState("rows", (rows,)))
        fleet.accept(device, replace(outcome, metrics=metrics))
        fleet.fold()

    for loss in (1.0, 0.9, 5.0):
        round_with(loss)
    roll_back(fleet.state, run, 2)
    round_with(0.91)
    assert run_status(fleet.state, run)["state"] == "active"
    round_with(0.92)
    status = run_status(fleet.state, run)
    assert (status["state"], status["why"]) == ("done", "loss has not got better than 0.9 for 2 evaluations")


def test_a_run_that_is_over_or_whose_devices_remember_is_not_rolled_back(fleet) -> None:
    devices = fleet.add_devices(2)
    run = fleet.create_run(rounds=9, strategy="scaffold")
    rounds(fleet, devices, 1)
    with pytest.raises(InvalidSettingError, match="its devices keep their corrections of the versions"):
        roll_back(fleet.state, run, 0)
    with pytest.raises(RunError, match="has no version 5"):
        roll_back(fleet.state, run, 5)
    plain = fleet.create_run(rounds=9)
    stop_run(fleet.state, plain)
    with pytest.raises(RunError, match="cannot go back: it is stopped"):
        roll_back(fleet.state, plain, 0)


def test_a_run_begins_with_weights_that_are_given(fleet) -> None:
    (device,) = fleet.add_devices(1)
    model = make_model_file(default_parameters(True), algorithms=ALGORITHMS)
    size = fleet_size(fleet)
    vector = np.arange(size, dtype="<f4") / 100
    digest = keep_weights(fleet.state, vector.tobytes())
    run = create_run(fleet.state, model, "people", RunSettings(rounds=1, target=1), weights=digest)
    assert run_status(fleet.state, run)["initial_weights_hash"] == digest
    assert next_task(fleet.state, device).base_weights_hash == digest


def fleet_size(fleet) -> int:
    run = fleet.create_run()
    size = fleet.state.weights.size(weights_of_round(fleet.state, run, 0)[0]) // 4
    stop_run(fleet.state, run)
    return size


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (np.zeros(5, "<f4").tobytes(), "of another layout than the model's. Expected a float32 vector of shape"),
        (b"abc", "four bytes each, got 3 bytes"),
        (b"", "got 0 bytes"),
    ],
)
def test_weights_of_another_layout_are_refused(fleet, data: bytes, message: str) -> None:
    model = make_model_file(default_parameters(True), algorithms=ALGORITHMS)

    def create() -> None:
        digest = keep_weights(fleet.state, data)
        create_run(fleet.state, model, "people", RunSettings(rounds=1, target=1), weights=digest)

    with pytest.raises(InvalidSettingError, match=message):
        create()
    with pytest.raises(InvalidSettingError, match="There are no weights"):
        create_run(fleet.state, model, "people", RunSettings(rounds=1, target=1), weights="0" * 64)


def test_the_log_says_the_rates_that_devices_had_also_where_rounds_were_added_or_given_back(fleet) -> None:
    """A cosine over all rounds is another one with each of them, and the weights follow from the one of then."""
    devices = fleet.add_devices(1)
    run = fleet.create_run(rounds=4, target=1, learning_rate_course="cosine", epochs=9, epochs_course="cosine")
    had = {}

    def train(count: int) -> None:
        for _ in range(count):
            task = fleet.finish(devices[0])
            had[task.version] = (task.learning_rate, task.epochs)
            fleet.fold()

    train(2)
    roll_back(fleet.state, run, 1)
    train(1)
    fleet.task(devices[0])  # under way from the newest version when the run gets more rounds
    continue_run(fleet.state, run, 3)
    train(2)
    continue_run(fleet.state, run, 2)
    train(4)
    assert run_status(fleet.state, run)["state"] == "done"
    continue_run(fleet.state, run, 2)
    train(2)
    settings = RunLog.from_json(run_log(fleet.state, run)).settings
    assert had == {
        version: (pytest.approx(settings.learning_rate_from(version)), settings.epochs_of(version)) for version in had
    }
    assert all(rate > 0 for rate, _ in had.values())
