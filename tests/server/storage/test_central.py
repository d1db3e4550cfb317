"""Which versions are to be evaluated on the operator's data, and what is kept of it."""

from __future__ import annotations

import io

import numpy as np
import pytest

from edgefl.errors import InvalidSettingError
from edgefl.wire.messages import MetricState, Outcome, TaskKind
from edgefl_server.aggregation import RunSettings, SettingError
from edgefl_server.storage import create_run, keep_central, keep_data, next_central, require_data, run_status
from model_files import make_model_file


def npz(**arrays) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


def create(fleet, **settings) -> str:
    digest = keep_data(fleet.state, npz(x=np.ones((2, 3))))
    values = {"rounds": 5, "target": 1, "seed": 1, **settings}
    return create_run(fleet.state, make_model_file(), "people", RunSettings.of(**values), evaluation_data=digest)


def versions_due(fleet) -> list[int]:
    """Takes up all that is due now."""
    found = []
    while (work := next_central(fleet.state)) is not None:
        found.append(work.version)
        keep_central(fleet.state, work.run, work.version, {"loss": 1.0}, 2)
    return found


@pytest.mark.parametrize(
    ("settings", "wanted"),
    [({}, [[0], [1], [2], [3], [4], [5]]), ({"evaluate_every": 3}, [[0], [], [], [3], [], [5]])],
)
def test_versions_are_evaluated_as_often_as_devices_do_and_the_last_in_any_case(fleet, settings, wanted) -> None:
    (device,) = fleet.add_devices(1)
    run = create(fleet, **settings)
    due = [versions_due(fleet)]
    for _ in range(5):
        while (task := fleet.task(device)).kind is not TaskKind.TRAIN:
            states = (MetricState("loss_sum", (1.0,)), MetricState("rows", (2.0,)))
            said = task.task_id, task.base_weights_hash, task.layout_hash
            fleet.accept(device, Outcome(*said, num_examples=2, metrics=states))
            fleet.fold()
        fleet.finish(device)
        fleet.fold()
        due.append(versions_due(fleet))
    assert due == wanted
    status = run_status(fleet.state, run)
    assert [each["version"] for each in status["central"]] == [version for some in wanted for version in some]
    assert not status["central_pending"]


def test_what_is_due_outlives_a_restart_and_a_run_that_is_over(make_fleet) -> None:
    fleet = make_fleet("a")
    (device,) = fleet.add_devices(1)
    run = create(fleet, rounds=2)
    for _ in range(2):
        fleet.finish(device)
        fleet.fold()
    assert run_status(fleet.state, run)["central_pending"]
    fleet.state.close()
    again = make_fleet("a", fleet.clock)
    assert versions_due(again) == [0, 1, 2]


def test_a_failure_is_told_and_the_run_goes_on(fleet) -> None:
    (device,) = fleet.add_devices(1)
    run = create(fleet, rounds=1)
    keep_central(fleet.state, run, 0, {}, 0, "the data does not fit")
    fleet.finish(device)
    fleet.fold()
    status = run_status(fleet.state, run)
    assert (status["state"], status["central"][0]["state"]) == ("done", "failed")
    assert status["central"][0]["why"] == "the data does not fit"
    assert versions_due(fleet) == [1]


@pytest.mark.parametrize(
    ("store", "gone"), [("weights", "its weights"), ("models", "the model file"), ("data", "the data")]
)
def test_a_version_of_which_a_file_is_gone_is_noted_as_failed_and_not_waited_for(fleet, store, gone) -> None:
    (device,) = fleet.add_devices(1)
    run = create(fleet, rounds=1)
    fleet.finish(device)
    fleet.fold()
    kept = getattr(fleet.state, store)
    for digest in list(kept):
        if store != "weights" or digest != run_status(fleet.state, run)["weights_hash"]:
            kept.path(digest).unlink()
    assert versions_due(fleet) == ([1] if store == "weights" else [])
    status = run_status(fleet.state, run)
    assert not status["central_pending"]
    assert status["central"][0]["state"] == "failed"
    assert status["central"][0]["why"] == f"gone from the server's folder: {gone}"


def test_a_run_without_data_has_nothing_due(fleet) -> None:
    fleet.create_run()
    assert next_central(fleet.state) is None


@pytest.mark.parametrize("data", [b"", b"something", b"PK\x05\x06" + bytes(18)])
def test_data_that_is_no_npz_is_refused(fleet, data: bytes) -> None:
    with pytest.raises(SettingError, match="evaluate_on expects an"):
        keep_data(fleet.state, data)


def test_data_that_was_not_sent_is_no_data(fleet) -> None:
    with pytest.raises(InvalidSettingError, match="There is no data"):
        require_data(fleet.state, "0" * 64)


def test_a_run_that_looks_at_no_weights_evaluates_none(fleet) -> None:
    with pytest.raises(SettingError, match="evaluate_on has no meaning with kind statistics"):
        create(fleet, kind="statistics", rounds=1, target=5)
