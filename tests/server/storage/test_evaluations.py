"""Evaluations of a run's versions: tasks of their own beside training, kept like everything else."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from sqlalchemy import select

from edgefl.wire.messages import MetricState, Outcome, TaskKind
from edgefl_server.aggregation import SettingError
from edgefl_server.storage import (
    continue_run,
    ended_runs,
    keep_central,
    next_task,
    pause_run,
    resume_run,
    roll_back,
    run_history,
    run_status,
    runs_summary,
    stop_run,
)
from edgefl_server.storage.tables import RunRow


def answer(task, loss_sum: float, rows: int) -> Outcome:
    """The outcome of an evaluation."""
    return Outcome(
        task_id=task.task_id,
        base_weights_hash=task.base_weights_hash,
        layout_hash=task.layout_hash,
        num_examples=rows,
        metrics=(MetricState("loss_sum", (loss_sum,)), MetricState("rows", (float(rows),))),
    )


def evaluate(fleet, device, loss_sum: float = 3.0, rows: int = 2):
    task = fleet.task(device)
    assert task.kind is TaskKind.EVALUATE
    fleet.accept(device, answer(task, loss_sum, rows))
    return task


def states(fleet, run: str) -> list[tuple[int, str]]:
    return [(each["version"], each["state"]) for each in run_status(fleet.state, run)["evaluations"]]


def test_the_initial_weights_every_nth_version_and_the_last_are_evaluated(fleet) -> None:
    devices = fleet.add_devices(3)
    run = fleet.create_run(rounds=5, target=2, evaluate_every=2, evaluate_cohort=1)
    for number in range(6):
        if number in (0, 2, 4, 5):
            evaluate(fleet, devices[2])
            fleet.fold()
        for device in devices[:2]:
            if number < 5:
                assert fleet.finish(device).kind is TaskKind.TRAIN
        fleet.fold()
    assert states(fleet, run) == [(0, "done"), (2, "done"), (4, "done"), (5, "done")]
    status = run_status(fleet.state, run)
    assert (status["state"], status["evaluating"]) == ("done", False)
    assert [each["loss"] for each in status["evaluations"]] == [1.5] * 4
    with fleet.state.database.read() as session:
        assert session.scalar(select(RunRow.state).where(RunRow.evaluates == run)) == "done"
    assert [each["run"] for each in runs_summary(fleet.state)] == [run]


def test_a_task_of_evaluation_names_the_run_as_devices_know_it_and_the_weights_of_the_version(fleet) -> None:
    devices = fleet.add_devices(2)
    run = fleet.create_run(rounds=2, target=1, evaluate_every=1)
    first = evaluate(fleet, devices[0])
    fleet.fold()
    trained = fleet.finish(devices[0])
    fleet.fold()
    second = evaluate(fleet, devices[0])
    status = run_status(fleet.state, run)
    assert (first.run, second.run, second.version) == (run, run, 1)
    assert first.base_weights_hash == status["initial_weights_hash"]
    assert second.base_weights_hash == status["weights_hash"] != first.base_weights_hash
    assert (first.continues, second.continues) == ("", trained.task_id)
    assert not second.codecs
    assert len({first.task_id, second.task_id, trained.task_id}) == 3


def test_the_value_over_the_fleet_is_that_of_the_summed_states_and_each_device_counts_once_in_the_spread(fleet) -> None:
    devices = fleet.add_devices(20)
    run = fleet.create_run(rounds=1, target=1, evaluate_every=1, evaluate_cohort=20)
    random = np.random.default_rng(0)
    rows, losses = random.integers(2, 3000, 20), random.uniform(0.5, 2.0, 20)
    for device, count, loss in zip(devices, rows, losses, strict=True):
        evaluate(fleet, device, float(loss * count), int(count))
    fleet.fold()
    (found,) = run_status(fleet.state, run)["evaluations"]
    # No cap of training holds here: the largest device has far more than ten times the median.
    assert found["num_examples"] == rows.sum()
    assert found["loss"] == pytest.approx(np.sum(losses * rows) / rows.sum(), rel=1e-15)
    spread = found["findings"]["spread"]["loss"]
    assert spread["mean"] == pytest.approx(losses.mean(), rel=1e-12)
    assert spread["deviation"] == pytest.approx(losses.std(), rel=1e-9)
    assert spread["quantiles"]["0.1"] == pytest.approx(np.quantile(losses, 0.1), rel=1e-12)
    assert spread["worst_tenth"] == pytest.approx(np.sort(losses)[-2:].mean(), rel=1e-12)


@pytest.mark.parametrize(("count", "keys"), [(4, None), (5, {"mean", "deviation"}), (19, {"mean", "deviation"})])
def test_over_few_devices_the_spread_and_quantiles_are_not_told(fleet, count: int, keys) -> None:
    devices = fleet.add_devices(count)
    run = fleet.create_run(rounds=1, target=1, evaluate_every=1, evaluate_cohort=count)
    for device in devices:
        evaluate(fleet, device)
    fleet.fold()
    (found,) = run_status(fleet.state, run)["evaluations"]
    spread = found["findings"]["spread"]
    assert (spread == {}) if keys is None else (set(spread["loss"]) == keys)
    assert found["loss"] == 1.5


def test_an_evaluation_that_fails_or_hangs_leaves_the_run_alone(fleet) -> None:
    devices = fleet.add_devices(2)
    run = fleet.create_run(rounds=3, target=1, evaluate_every=1, evaluate_cohort=1, max_failures=1)
    hanging = fleet.task(devices[0])
    assert hanging.kind is TaskKind.EVALUATE
    for _ in range(3):
        fleet.finish(devices[1])
        fleet.fold()
    assert run_status(fleet.state, run)["state"] == "done"
    assert states(fleet, run) == [(0, "selecting")] or states(fleet, run) == [(0, "collecting")]
    fleet.accept(devices[0], answer(hanging, 3.0, 2))
    fleet.fold()
    # What lies between was passed over; the last version is evaluated in any case.
    assert states(fleet, run)[0] == (0, "done")
    assert states(fleet, run)[1][0] == 3
    assert ended_runs(fleet.state, "people", [run]) == []  # what devices remember of it is needed until then
    evaluate(fleet, devices[0])
    fleet.fold()
    assert states(fleet, run) == [(0, "done"), (3, "done")]
    assert ended_runs(fleet.state, "people", [run]) == [run]


def test_many_failed_evaluations_do_not_end_them(fleet) -> None:
    from edgefl.wire.messages import OutcomeStatus, Reason

    (device,) = fleet.add_devices(1)
    run = fleet.create_run(rounds=5, target=1, evaluate_every=1, evaluate_cohort=1)
    for number in range(5):
        for _ in range(3):
            task = fleet.give_up(device, Reason.INTERNAL, OutcomeStatus.FAILED)
            assert task.kind is TaskKind.EVALUATE
            fleet.clock.now += 100
        assert states(fleet, run)[-1] == (number, "failed")
        fleet.finish(device)
        fleet.fold()
    assert run_status(fleet.state, run)["state"] == "done"
    evaluate(fleet, device)
    fleet.fold()
    assert states(fleet, run)[-1] == (5, "done")


def test_a_stop_ends_the_evaluation_too_also_that_of_the_last_version(fleet) -> None:
    (device,) = fleet.add_devices(1)
    run = fleet.create_run(rounds=1, target=1, evaluate_every=1)
    evaluate(fleet, device)
    fleet.fold()
    fleet.finish(device)
    fleet.fold()
    assert run_status(fleet.state, run)["evaluating"]
    assert stop_run(fleet.state, run)
    status = run_status(fleet.state, run)
    assert (status["state"], status["evaluating"]) == ("done", False)
    assert states(fleet, run) == [(0, "done"), (1, "failed")]
    assert not stop_run(fleet.state, run)


def test_a_run_that_gets_more_rounds_is_evaluated_again(fleet) -> None:
    (device,) = fleet.add_devices(1)
    run = fleet.create_run(rounds=1, target=1, evaluate_every=1)
    evaluate(fleet, device)
    fleet.fold()
    fleet.finish(device)
    fleet.fold()
    evaluate(fleet, device)
    fleet.fold()
    continue_run(fleet.state, run, 1)
    fleet.finish(device)
    fleet.fold()
    evaluate(fleet, device)
    fleet.fold()
    assert states(fleet, run) == [(0, "done"), (1, "done"), (2, "done")]


def test_what_was_accepted_is_there_after_a_restart(make_fleet) -> None:
    fleet = make_fleet("a")
    devices = fleet.add_devices(2)
    run = fleet.create_run(rounds=1, target=1, evaluate_every=1, evaluate_cohort=2)
    evaluate(fleet, devices[0], 3.0, 2)
    fleet.state.close()
    again = make_fleet("a", fleet.clock)
    evaluate(again, devices[1], 5.0, 2)
    again.state.close()
    last = make_fleet("a", fleet.clock)
    last.fold()
    (found,) = run_status(last.state, run)["evaluations"]
    assert (found["state"], found["loss"], found["outcomes"]["folded"]) == ("done", 2.0, 2)


def test_an_evaluation_moves_no_weights_and_a_lie_in_it_counts_for_nothing(fleet) -> None:
    devices = fleet.add_devices(4)
    run = fleet.create_run(rounds=1, target=4, evaluate_every=1)
    for device in devices[:3]:
        evaluate(fleet, device)
    evaluate(fleet, devices[3], 1e9, 2)
    fleet.fold()
    (found,) = run_status(fleet.state, run)["evaluations"]
    assert (found["loss"], found["diagnostics"]["metrics_left_out"]) == (1.5, 1.0)
    status = run_status(fleet.state, run)
    assert status["weights_hash"] == status["initial_weights_hash"]


def test_a_run_may_do_nothing_but_evaluate(fleet) -> None:
    devices = fleet.add_devices(2)
    run = fleet.create_run(rounds=1, target=2, kind="evaluate")
    for device in devices:
        evaluate(fleet, device)
    fleet.fold()
    status = run_status(fleet.state, run)
    assert (status["state"], status["history"][0]["loss"]) == ("done", 1.5)
    json.dumps(status)


def test_tests_before_and_after_training_are_told_with_the_round(fleet) -> None:
    (device,) = fleet.add_devices(1)
    run = fleet.create_run(rounds=1, target=1, local_test=0.25)
    task = fleet.task(device)
    assert task.local_test == 0.25
    found = {"loss_sum": 6.0, "rows": 3.0, "before/loss_sum": 4.0, "before/rows": 1.0, "after/loss_sum": 2.0}
    found["after/rows"] = 1.0
    states = tuple(MetricState(name, (value,)) for name, value in found.items())
    fleet.accept(device, replace(fleet.outcome(task), metrics=states))
    fleet.fold()
    (entry,) = run_status(fleet.state, run)["history"]
    assert entry["loss"] == 2.0
    assert (entry["metrics"]["before/loss"], entry["metrics"]["after/loss"]) == (4.0, 2.0)


def test_a_share_for_tests_is_refused_where_no_device_trains(fleet) -> None:
    with pytest.raises(SettingError, match="local_test has no meaning with strategy fedsgd"):
        fleet.create_run(strategy="fedsgd", local_test=0.25)


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"kind": "evaluate", "epochs": 2}, "epochs has no meaning with kind evaluate"),
        ({"kind": "evaluate", "rule": "median"}, "rule has no meaning with kind evaluate"),
        ({"kind": "evaluate", "patience": 3}, "patience has no meaning with kind evaluate"),
        ({"kind": "evaluate", "max_examples": 3}, "max_examples has no meaning with kind evaluate"),
        ({"kind": "guess"}, "kind expects one of train, evaluate, statistics"),
        ({"kind": "statistics", "target": 4}, "kind statistics expects at least 5 outcomes"),
        ({"kind": "statistics", "target": 6, "minimum": 4}, "kind statistics expects at least 5 outcomes"),
        ({"evaluate_cohort": 3}, "evaluate_cohort has no meaning without evaluate_every"),
        ({"evaluate_every": -1}, "evaluate_every expects a number from 0"),
        ({"local_test": 1.5}, "local_test expects"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(fleet, settings, match: str) -> None:
    with pytest.raises(SettingError, match=match):
        fleet.create_run(**settings)


def test_the_history_of_versions_says_what_devices_and_the_server_found_of_each(fleet) -> None:
    (device,) = fleet.add_devices(1)
    run = fleet.create_run(rounds=1, target=1, evaluate_every=1)
    evaluate(fleet, device)
    fleet.fold()
    fleet.finish(device)
    fleet.fold()
    keep_central(fleet.state, run, 1, {"loss": 0.5}, 9)
    first, second = run_history(fleet.state, run)["versions"]
    assert (first["evaluated"], first["central"]) == ({"loss": 1.5}, {})
    assert (second["evaluated"], second["central"]) == ({}, {"loss": 0.5})


def test_an_evaluation_that_waits_for_more_devices_than_there_are_says_so(fleet) -> None:
    (device,) = fleet.add_devices(1)
    run = fleet.create_run(rounds=1, target=1, evaluate_every=1, evaluate_cohort=3)
    evaluate(fleet, device)
    fleet.finish(device)
    fleet.fold()
    status = run_status(fleet.state, run)
    assert (status["state"], status["evaluating"]) == ("done", True)
    assert "to be evaluated on 3 devices, and 1 are enrolled" in status["warnings"][0]
    stop_run(fleet.state, run)
    assert run_status(fleet.state, run)["warnings"] == []


def test_a_run_is_evaluated_after_its_pause_and_after_it_was_rolled_back(fleet) -> None:
    (device,) = fleet.add_devices(1)
    run = fleet.create_run(rounds=3, target=1, evaluate_every=1)
    evaluate(fleet, device)
    fleet.fold()
    fleet.finish(device)
    fleet.fold()
    pause_run(fleet.state, run)
    assert next_task(fleet.state, device) is None
    resume_run(fleet.state, run)
    evaluate(fleet, device)  # of version 1, which was there before
    fleet.fold()
    roll_back(fleet.state, run, 0)
    evaluate(fleet, device)  # of what is the newest version now
    fleet.fold()
    fleet.finish(device)
    fleet.fold()
    evaluate(fleet, device)
    fleet.fold()
    status = run_status(fleet.state, run)
    assert [each["version"] for each in status["evaluations"]][:2] == [0, 1]
    assert status["evaluations"][-1]["version"] == run_history(fleet.state, run)["version"]


def test_patience_goes_by_the_evaluations_where_there_are_some(fleet) -> None:
    devices = fleet.add_devices(2)
    run = fleet.create_run(rounds=50, target=1, patience=2, evaluate_every=1, evaluate_cohort=1)
    for loss in (9.0, 7.0, 5.0, 5.5, 6.0):  # while the devices' own in training stays the same from the first round on
        evaluate(fleet, devices[1], loss)
        fleet.fold()
        assert run_status(fleet.state, run)["state"] == "active"
        fleet.finish(devices[0])
        fleet.fold()
    status = run_status(fleet.state, run)
    assert (status["state"], status["round"]) == ("done", 5)
    assert status["why"] == "loss has not got better than 2.5 for 2 evaluations"
