from __future__ import annotations

import numpy as np
import pytest

from edgefl.algorithms import ALGORITHMS
from edgefl.errors import InvalidSettingError, RunError
from edgefl.layout import Parameter
from edgefl_server.aggregation import RunSettings, SettingError
from edgefl_server.storage import (
    NameTakenError,
    create_run,
    ended_runs,
    fold_round,
    next_task,
    run_status,
    stop_run,
    weights_of_round,
)
from edgefl_server.storage import made_folds as made_folds_module
from edgefl_server.storage.continuing import continue_run
from model_files import default_parameters, make_model_file


def play(fleet, rounds: int) -> None:
    for _ in range(rounds):
        for device in fleet.devices:
            fleet.finish(device)
        assert fleet.fold()


def test_a_run_that_is_over_goes_on_from_its_newest_weights_as_if_it_had_had_more_rounds_at_once(make_fleet) -> None:
    results = []
    for name, rounds, more in (("whole", 4, 0), ("continued", 2, 2)):
        fleet = make_fleet(name)
        fleet.add_devices(2)
        run = fleet.create_run(rounds=rounds)
        play(fleet, rounds)
        assert run_status(fleet.state, run)["state"] == "done"
        assert next_task(fleet.state, fleet.devices[0]) is None
        if more:
            assert continue_run(fleet.state, run, more) == run
            status = run_status(fleet.state, run)
            assert (status["state"], status["rounds"], status["ended_at"]) == ("active", 4, None)
            assert ended_runs(fleet.state, "people", [run]) == []
            play(fleet, more)
        status = run_status(fleet.state, run)
        assert (status["state"], status["round"]) == ("done", 4)
        assert [entry["round"] for entry in status["history"]] == [1, 2, 3, 4]
        digest, _ = weights_of_round(fleet.state, run, None)
        results.append(np.frombuffer(fleet.state.weights.get(digest), "<f4"))
    np.testing.assert_array_equal(*results)


def test_an_active_run_gets_more_rounds_also_while_its_last_one_is_being_folded(
    fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    fleet.add_devices(2)
    run = fleet.create_run(rounds=1)
    for device in fleet.devices:
        fleet.finish(device)
    merge = made_folds_module.merge

    def merged(*arguments):
        continue_run(fleet.state, run, 3)
        return merge(*arguments)

    monkeypatch.setattr(made_folds_module, "merge", merged)
    assert fold_round(fleet.state, run, 1)
    status = run_status(fleet.state, run)
    assert (status["state"], status["round"], status["rounds"]) == ("active", 2, 4)


def test_a_run_that_was_stopped_goes_on_behind_the_rounds_that_it_had(fleet) -> None:
    fleet.add_devices(2)
    run = fleet.create_run(rounds=10)
    play(fleet, 1)
    fleet.finish(fleet.devices[0])
    stop_run(fleet.state, run)
    continue_run(fleet.state, run, 2)
    play(fleet, 2)
    status = run_status(fleet.state, run)
    assert (status["state"], status["rounds"]) == ("done", 4)
    assert [entry["state"] for entry in status["history"]] == ["done", "failed", "done", "done"]


@pytest.mark.parametrize("strategy", [{"strategy": "scaffold"}, {"strategy": "feddyn", "mu": 0.1}])
def test_what_devices_have_forgotten_cannot_go_on_and_is_continued_while_it_is_active(fleet, strategy) -> None:
    fleet.add_devices(2)
    run = fleet.create_run(rounds=1, **strategy)
    continue_run(fleet.state, run, 1)
    assert run_status(fleet.state, run)["rounds"] == 2
    stop_run(fleet.state, run)
    with pytest.raises(InvalidSettingError, match="forgotten their corrections"):
        continue_run(fleet.state, run, 1)
    assert run_status(fleet.state, run)["state"] == "stopped"


def test_neither_can_a_run_with_parameters_of_each_device(fleet) -> None:
    model = make_model_file([*default_parameters(), Parameter("own/bias", "m/own/bias", (3,), shared=False)])
    run = create_run(fleet.state, model, "people", RunSettings(rounds=1, target=1))
    stop_run(fleet.state, run)
    with pytest.raises(InvalidSettingError, match="parameters that are their own"):
        continue_run(fleet.state, run, 1)


@pytest.mark.parametrize("rounds", [0, -3, 10**6])
def test_more_is_at_least_one_and_not_without_end(fleet, rounds: int) -> None:
    run = fleet.create_run()
    with pytest.raises(SettingError, match="rounds expects a number from 1"):
        continue_run(fleet.state, run, rounds)
    assert run_status(fleet.state, run)["rounds"] == 3


def test_rounds_in_which_nothing_would_be_learnt_are_refused(fleet) -> None:
    run = fleet.create_run(learning_rate_course="cosine", learning_rate_every=3)
    with pytest.raises(SettingError, match="comes to 0 after 3 versions, and the run has 5 rounds"):
        continue_run(fleet.state, run, 2)
    assert run_status(fleet.state, run)["rounds"] == 3


def test_a_name_that_another_run_has_meanwhile_stays_with_that(fleet) -> None:
    data, settings = make_model_file(algorithms=ALGORITHMS), RunSettings(rounds=1, target=1)
    first = create_run(fleet.state, data, "people", settings, "mine")
    stop_run(fleet.state, first)
    second = create_run(fleet.state, data, "people", settings, "mine")
    with pytest.raises(NameTakenError, match=f"Run {second}"):
        continue_run(fleet.state, first, 1)
    with pytest.raises(RunError, match="no run"):
        continue_run(fleet.state, "nothing", 1)


def test_the_time_of_a_round_counts_from_its_first_task(fleet) -> None:
    run = fleet.create_run(rounds=2)
    fleet.clock.now += 5000
    assert run_status(fleet.state, run)["history"][0]["seconds"] == 0
    fleet.add_devices(2)
    tasks = [fleet.task(device) for device in fleet.devices]
    fleet.clock.now += 7
    assert run_status(fleet.state, run)["history"][0]["seconds"] == 7
    for device, task in zip(fleet.devices, tasks, strict=True):
        fleet.accept(device, fleet.outcome(task))
    fleet.fold()
    fleet.clock.now += 90
    history = run_status(fleet.state, run)["history"]
    assert [entry["seconds"] for entry in history] == [7, 0]
