from __future__ import annotations

import threading
from dataclasses import replace

import numpy as np
import pytest

from edgefl.algorithms import ALGORITHMS
from edgefl.errors import EdgeflError, InvalidSettingError, ModelFileError, RunError
from edgefl.model_file import ModelFile
from edgefl_server.aggregation import RunSettings
from edgefl_server.storage import NameTakenError, create_run, run_status, runs_summary, stop_run, weights_of_round
from model_files import default_parameters, make_model_file

SETTINGS = RunSettings(rounds=2, target=2)


def test_a_run_starts_from_the_weights_in_the_file(fleet) -> None:
    data = make_model_file(seed=3)
    run = create_run(fleet.state, data, "people", SETTINGS, "mine")
    digest, number = weights_of_round(fleet.state, run, None)
    assert number == 0
    np.testing.assert_array_equal(
        np.frombuffer(fleet.state.weights.get(digest), "<f4"), ModelFile(data).initial_weights()
    )
    status = run_status(fleet.state, run)
    assert digest == status["weights_hash"] == ModelFile(data).manifest.weights_hash
    assert fleet.state.models.get(status["model_hash"]) == data
    assert (status["name"], status["state"], status["round"]) == ("mine", "active", 1)


def test_a_run_without_a_seed_draws_one_and_shows_it(fleet) -> None:
    seeds = set()
    for _ in range(2):
        run = create_run(fleet.state, make_model_file(), "people", SETTINGS)
        seeds.add(run_status(fleet.state, run)["settings"]["seed"])
    assert len(seeds) == 2
    assert None not in seeds


def test_a_seed_of_zero_is_a_seed(fleet) -> None:
    run = create_run(fleet.state, make_model_file(), "people", replace(SETTINGS, seed=0))
    assert run_status(fleet.state, run)["settings"]["seed"] == 0


@pytest.mark.parametrize("position", [3, 60, 600, -1])
def test_a_damaged_model_file_is_refused_and_nothing_is_kept(fleet, position: int) -> None:
    data = bytearray(make_model_file())
    data[position] ^= 0xFF
    with pytest.raises(EdgeflError):
        create_run(fleet.state, bytes(data), "people", SETTINGS)
    assert runs_summary(fleet.state) == []
    assert list(fleet.state.models) == list(fleet.state.weights) == []


def test_what_is_no_model_file_is_refused(fleet) -> None:
    with pytest.raises(ModelFileError):
        create_run(fleet.state, b"not a model", "people", SETTINGS)


def test_a_batch_larger_than_the_models_is_refused(fleet) -> None:
    with pytest.raises(InvalidSettingError, match="at most the model's 8"):
        create_run(fleet.state, make_model_file(), "people", RunSettings(rounds=1, target=1, batch_size=9))


@pytest.mark.parametrize("size", [1, 4, 7])
def test_a_batch_that_every_device_would_decline_is_refused_with_the_way_out(fleet, size: int) -> None:
    settings = replace(SETTINGS, batch_size=size)
    with pytest.raises(InvalidSettingError, match="batch_size expects the model's 8") as refused:
        create_run(fleet.state, make_model_file(mixes_rows=True), "people", settings)
    assert f"`batch_size={size}`" in (refused.value.hint or "")
    assert runs_summary(fleet.state) == []
    for model, allowed in ((make_model_file(mixes_rows=True), 8), (make_model_file(), size)):
        create_run(fleet.state, model, "people", replace(SETTINGS, batch_size=allowed))


def test_a_model_that_holds_nan_is_refused(fleet) -> None:
    values = [np.zeros((3, 4), np.float32), np.full(4, np.nan, np.float32)]
    model = make_model_file(default_parameters(statistics=False), values=values)
    with pytest.raises(InvalidSettingError, match="NaN"):
        create_run(fleet.state, model, "people", SETTINGS)
    assert runs_summary(fleet.state) == []


def test_a_model_without_statistics_trains_too(fleet) -> None:
    run = create_run(fleet.state, make_model_file(default_parameters(statistics=False)), "people", SETTINGS)
    assert len(fleet.state.weights.get(weights_of_round(fleet.state, run, 0)[0])) == 4 * 16


def test_a_run_or_round_that_does_not_exist_is_named(fleet) -> None:
    run = create_run(fleet.state, make_model_file(), "people", SETTINGS)
    for call in (run_status, stop_run):
        with pytest.raises(RunError, match="no run 'abc'"):
            call(fleet.state, "abc")
    with pytest.raises(RunError, match="no weights of round 1"):
        weights_of_round(fleet.state, run, 1)


def test_a_run_is_found_by_its_name(fleet) -> None:
    run = create_run(fleet.state, make_model_file(), "people", SETTINGS, "first")
    assert run_status(fleet.state, "first")["run"] == run
    assert weights_of_round(fleet.state, "first", 0) == weights_of_round(fleet.state, run, 0)


def test_two_active_runs_cannot_have_one_name_and_nothing_is_kept_of_the_second(fleet) -> None:
    first = create_run(fleet.state, make_model_file(), "people", SETTINGS, "mine")
    models = sorted(fleet.state.models)
    for name in ("mine", first):  # an id is taken as well: it would hide the run with that name
        with pytest.raises(NameTakenError, match=first):
            create_run(fleet.state, make_model_file(seed=9), "others", SETTINGS, name)
    assert [entry["run"] for entry in runs_summary(fleet.state)] == [first]
    assert sorted(fleet.state.models) == models


def test_a_name_is_free_again_when_its_run_is_over_and_then_means_the_active_one(fleet) -> None:
    first = create_run(fleet.state, make_model_file(), "people", SETTINGS, "mine")
    stop_run(fleet.state, "mine")
    assert run_status(fleet.state, "mine")["run"] == first
    second = create_run(fleet.state, make_model_file(), "people", SETTINGS, "mine")
    assert run_status(fleet.state, "mine")["run"] == second
    stop_run(fleet.state, "mine")
    with pytest.raises(RunError, match="2 runs are named 'mine'"):
        stop_run(fleet.state, "mine")


def test_two_requests_for_one_name_at_the_same_moment_make_one_run(fleet) -> None:
    started = threading.Barrier(4)
    results = []

    def create() -> None:
        started.wait()
        try:
            results.append(create_run(fleet.state, make_model_file(), "people", SETTINGS, "mine"))
        except NameTakenError:
            results.append("")

    threads = [threading.Thread(target=create) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(map(bool, results)) == 1


@pytest.mark.parametrize("name", ["a b", "../x", "x" * 65, "-x"])
def test_a_name_is_a_plain_word(fleet, name: str) -> None:
    with pytest.raises(InvalidSettingError, match="name expects"):
        create_run(fleet.state, make_model_file(), "people", SETTINGS, name)


def test_runs_are_listed_oldest_first(fleet) -> None:
    runs = []
    for _ in range(3):
        runs.append(fleet.create_run())
        fleet.clock.now += 1
    assert [entry["run"] for entry in runs_summary(fleet.state)] == runs


@pytest.mark.parametrize(
    ("strategy", "mu", "hint"),
    [
        ("fedprox", 0.1, "`algorithms='fedprox'`"),
        ("scaffold", None, "`algorithms='scaffold'`"),
        ("feddyn", 0.1, "`algorithms='feddyn'`"),
        ("fedsgd", None, "`algorithms='fedsgd'`"),
    ],
)
def test_a_file_that_cannot_take_part_in_the_strategy_is_refused_with_the_way_out(fleet, strategy, mu, hint) -> None:
    settings = RunSettings.of(rounds=1, target=1, strategy=strategy, mu=mu)
    others = [each for each in ALGORITHMS if each not in (strategy, "feddyn")]
    others = [each for each in others if strategy != "feddyn" or each != "scaffold"]
    with pytest.raises(InvalidSettingError, match=strategy) as refused:
        create_run(fleet.state, make_model_file(algorithms=others), "people", settings)
    assert hint in (refused.value.hint or "")
    assert runs_summary(fleet.state) == []


def test_scaffold_is_refused_for_an_optimizer_that_its_formula_does_not_fit(fleet) -> None:
    settings = RunSettings(rounds=1, target=1, strategy="scaffold")
    model = make_model_file(algorithms=["scaffold"], momentum=0.9)
    with pytest.raises(InvalidSettingError, match=r"plain SGD.*momentum 0\.9"):
        create_run(fleet.state, model, "people", settings)


def test_a_model_of_which_nothing_is_shared_is_refused(fleet) -> None:
    parameters = [replace(each, shared=False) for each in default_parameters(statistics=False)]
    with pytest.raises(InvalidSettingError, match="nothing to merge"):
        create_run(fleet.state, make_model_file(parameters), "people", SETTINGS)


@pytest.mark.parametrize("change", [{"shared": False}, {"role": "statistic"}])
def test_fedsgd_is_refused_where_something_would_never_be_trained(fleet, change) -> None:
    kernel, bias = default_parameters(statistics=False)
    model = make_model_file([kernel, replace(bias, **change)], algorithms=["fedsgd"])
    with pytest.raises(InvalidSettingError, match="'dense/bias' would stay as it is"):
        create_run(fleet.state, model, "people", RunSettings(rounds=1, target=1, strategy="fedsgd"))


def test_the_servers_learning_rate_of_fedsgd_is_the_models_unless_given(fleet) -> None:
    model = make_model_file(default_parameters(statistics=False), algorithms=["fedsgd"])
    run = create_run(fleet.state, model, "people", RunSettings(rounds=1, target=1, strategy="fedsgd"))
    assert run_status(fleet.state, run)["settings"]["server_learning_rate"] == 0.01


def test_a_run_ends_when_its_patience_does_and_says_why(fleet) -> None:
    devices = fleet.add_devices(2)
    run = fleet.create_run(rounds=50, patience=2)
    for _ in range(3):
        for device in devices:
            fleet.finish(device)
        fleet.fold()
    status = run_status(fleet.state, run)
    assert (status["state"], status["round"]) == ("done", 3)
    assert "loss has not got better than" in status["why"]
    with pytest.raises(InvalidSettingError, match="patience_metric expects one of the model's loss"):
        fleet.create_run(patience=2, patience_metric="beauty")


def test_each_task_says_the_rate_and_the_epochs_of_its_version(fleet) -> None:
    devices = fleet.add_devices(2)
    fleet.create_run(
        rounds=4, epochs=4, learning_rate_course="step", learning_rate_every=1, epochs_course="step", epochs_every=1
    )
    said = []
    for _ in range(3):
        tasks = [fleet.finish(device) for device in devices]
        said.append({(task.learning_rate, task.epochs) for task in tasks})
        fleet.fold()
    (first,) = said[0]
    assert said == [{(first[0] * 0.5**version, 4 // 2**version)} for version in range(3)]
    assert first[0] > 0
