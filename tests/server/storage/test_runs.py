from __future__ import annotations

import numpy as np
import pytest

from edgefl.errors import EdgeflError, InvalidSettingError, ModelFileError, RunError
from edgefl.model_file import ModelFile
from edgefl_server.aggregation import RunSettings
from edgefl_server.storage import create_run, run_status, runs_summary, stop_run, weights_of_round
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
    assert 0 not in seeds


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


def test_a_run_is_found_by_its_name_when_only_one_has_it(fleet) -> None:
    run = create_run(fleet.state, make_model_file(), "people", SETTINGS, "first")
    assert run_status(fleet.state, "first")["run"] == run
    assert weights_of_round(fleet.state, "first", 0) == weights_of_round(fleet.state, run, 0)
    create_run(fleet.state, make_model_file(), "people", SETTINGS, "first")
    with pytest.raises(RunError, match="2 runs are named 'first'"):
        stop_run(fleet.state, "first")
    assert run_status(fleet.state, run)["state"] == "active"


@pytest.mark.parametrize("name", ["a b", "../x", "x" * 65, "-x"])
def test_a_name_is_a_plain_word(fleet, name: str) -> None:
    with pytest.raises(InvalidSettingError, match="--name"):
        create_run(fleet.state, make_model_file(), "people", SETTINGS, name)


def test_runs_are_listed_oldest_first(fleet) -> None:
    runs = []
    for _ in range(3):
        runs.append(fleet.create_run())
        fleet.clock.now += 1
    assert [entry["run"] for entry in runs_summary(fleet.state)] == runs
