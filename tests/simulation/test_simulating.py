"""`edgefl.simulate` and `edgefl simulate`: what they leave, how they go on, and what they refuse."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys

import numpy as np
import pytest

import edgefl
from edgefl.errors import DataError, EdgeflError, InvalidSettingError, RunError, StorageError
from edgefl_simulation.pace import Steady
from server_process import edgefl as command_line

SETTINGS = {"devices": 6, "partition": "dirichlet:1,2", "rounds": 5, "cohort": 3, "workers": 1, "seed": 3}


@pytest.fixture
def data(owned):
    found = owned(3, 40)
    return found["x"], found["y"]


def rows_of(history):
    return [{**row, "seconds": 0} for row in history.rounds]


def test_a_simulation_learns_and_says_how_well_on_rows_that_no_device_holds_and_on_devices(plain_sgd_file, data):
    told = []
    history = edgefl.simulate(plain_sgd_file, data, on_round=told.append, epochs=5, **{**SETTINGS, "rounds": 10})
    assert told == history.rounds
    assert len(told) == 10
    accuracy = history.metric("accuracy")
    assert accuracy[-1] > history.initial["central"]["accuracy"] + 0.15
    federated = history.rounds[-1]["federated"]
    assert federated["devices"] == 3
    assert federated["accuracy"]["worst_tenth"] <= federated["accuracy"]["quantiles"]["0.5"]
    assert federated["loss"]["worst_tenth"] >= federated["loss"]["quantiles"]["0.5"]
    assert history.summary()["central"] == history.final


def test_what_central_evaluation_says_is_what_the_weights_do(plain_sgd_file, data):
    x, y = data
    history = edgefl.simulate(
        plain_sgd_file, {"x": x, "y": y, "test_x": x[:50], "test_y": y[:50]}, **{**SETTINGS, "evaluate_devices": 0}
    )
    model = edgefl.TrainableModel(plain_sgd_file)
    model.weights = history.weights
    assert history.final == pytest.approx(model.evaluate(x[:50], y[:50]), abs=1e-6)
    assert "federated" not in history.rounds[-1]


def test_a_run_ends_early_when_it_has_reached_what_was_wanted(plain_sgd_file, data):
    history = edgefl.simulate(plain_sgd_file, data, until={"loss": 1.55}, epochs=3, **{**SETTINGS, "rounds": 30})
    assert history.stopped == "loss reached 1.55"
    losses = history.metric("loss")
    assert losses[-1] <= 1.55 < min(losses[:-1], default=9)


def test_a_folder_that_is_another_run_s_is_left_as_it_is(plain_sgd_file, data, tmp_path):
    settings = {**SETTINGS, "rounds": 1, "out": tmp_path / "run"}
    edgefl.simulate(plain_sgd_file, data, **settings)
    before = {path.name: path.read_bytes() for path in (tmp_path / "run").iterdir()}
    with pytest.raises(InvalidSettingError, match="holds a simulation already"):
        edgefl.simulate(plain_sgd_file, data, **settings)
    with pytest.raises(InvalidSettingError, match="seed is 3 there, got 4"):
        edgefl.simulate(plain_sgd_file, data, **{**settings, "seed": 4, "resume": True})
    with pytest.raises(InvalidSettingError, match="other settings: data"):
        edgefl.simulate(plain_sgd_file, (data[0] + 1, data[1]), **{**settings, "resume": True})
    (tmp_path / "else").mkdir()
    (tmp_path / "else" / "letter.txt").write_text("dear")
    with pytest.raises(InvalidSettingError, match="is not empty"):
        edgefl.simulate(plain_sgd_file, data, **{**settings, "out": tmp_path / "else"})
    assert {path.name: path.read_bytes() for path in (tmp_path / "run").iterdir()} == before
    (tmp_path / "run" / "checkpoint.npz").write_bytes(b"PK\x03\x04 cut short")
    with pytest.raises(StorageError, match="damaged"):
        edgefl.simulate(plain_sgd_file, data, **{**settings, "resume": True})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"cohort": 7}, "The cohort has 7 devices, and the fleet 6"),
        ({"cohort": 0}, "cohort expects a number from 1"),
        ({"strategy": "scafold"}, "Did you mean scaffold"),
        ({"strategy": "scaffold"}, "algorithms='scaffold'"),
        ({"until": {"acuracy": 1}}, "no metric 'acuracy'"),
        ({"held_out": 1.0}, "held_out expects a share"),
        ({"batch_size": 9}, "batch_size expects at most the model's 8"),
        ({"workers": -1}, "workers expects a whole number from 0 to 1024, got -1"),
        ({"workers": 100_000}, "workers expects a whole number from 0 to 1024, got 100000"),
        ({"workers": 1.5}, "workers expects a whole number"),
        ({"evaluate_every": "often"}, "evaluate_every expects a whole number"),
        ({"evaluate_devices": -1}, "evaluate_devices expects a whole number"),
        ({"minimum_examples": 0}, "minimum_examples expects a whole number from 1"),
        ({"devices": 10**20}, "number of devices expects a whole number"),
        ({"partition": 5}, "partition expects text or a Partitioner, got 5"),
        ({"held_out": "some"}, "held_out expects a number"),
        ({"until": "accuracy"}, "until expects a dict or None"),
        ({"devices": 2.5}, "devices expects a whole number"),
        ({"until": {"accuracy": float("nan")}}, "expects a number, got nan"),
        ({"partition": "dirichlet:1e308"}, "an alpha above 0 and up to 1e+09"),
        ({"devices": 500}, "500 devices have"),
        ({"until": {"accuracy": 2}}, "'accuracy' that ends a run expects at most 1, got 2"),
        ({"evaluate_devices": 7}, "evaluate_devices expects a number from 0 to 6, which is the fleet, got 7"),
        ({"epoch": 3}, "edgefl.simulate has no argument 'epoch'. Did you mean epochs?"),
        ({"divices": 3}, "Did you mean devices?"),
        ({"target": 3}, "Did you mean cohort?"),
        ({"minimum": 4}, "minimum expects a number from 0 to 3, got 4. It is at most the cohort."),
        ({"strategy": "scaffold", "schedule": "buffered"}, "schedule buffered does not go with strategy scaffold"),
        ({"strategy": "fedbuff"}, "strategy fedbuff merges updates as they come"),
        ({"learning_rate": -1}, "learning_rate expects a number above 0, got -1. Usual ones are below 10"),
    ],
)
def test_a_setting_that_cannot_be_is_refused_before_anything_is_written(
    plain_sgd_file, data, tmp_path, changes, message
):
    with pytest.raises(InvalidSettingError) as caught:
        edgefl.simulate(plain_sgd_file, data, out=tmp_path / "run", **{**SETTINGS, **changes})
    assert message in str(caught.value)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("seconds", [{"step_seconds": 1e308}, {"overhead_seconds": float("inf")}, {"step_seconds": -1}])
def test_times_in_which_nothing_ever_comes_are_refused(seconds):
    with pytest.raises(InvalidSettingError, match="expect seconds from 0 to"):
        Steady(**seconds)


def test_going_on_needs_a_folder_and_one_that_holds_nothing_is_said_to(plain_sgd_file, data, tmp_path, monkeypatch):
    with pytest.raises(InvalidSettingError, match=r"resume goes on where a folder is, and none is named\. Give out\."):
        edgefl.simulate(plain_sgd_file, data, resume=True, **SETTINGS)
    told = io.StringIO()
    monkeypatch.setattr(sys, "stderr", told)
    given = {**SETTINGS, "rounds": 1, "out": tmp_path / "run", "resume": True, "verbose": True}
    for begins in (True, False):
        edgefl.simulate(plain_sgd_file, data, **given)
        assert ("run holds nothing to go on from: the simulation begins anew." in told.getvalue()) == begins
        told.truncate(0)


def test_what_may_be_a_mistake_is_said_in_a_line(plain_sgd_file, data, monkeypatch):
    x, y = data
    told = io.StringIO()
    monkeypatch.setattr(sys, "stderr", told)
    given = {**SETTINGS, "rounds": 1, "verbose": True, "devices": 0}
    edgefl.simulate(plain_sgd_file, ((x * 10).astype(np.uint8), y), **{**given, "partition": "size:20,20,20"})
    kept = len(y) - round(0.1 * len(y)) - 60
    assert f"{kept} of {len(y)} rows lie on no device" in told.getvalue()
    assert "The array 'x' is uint8, as pixels from 0 to 255, and no layer of the model scales it" in told.getvalue()
    told.truncate(0)
    edgefl.simulate(plain_sgd_file, (x, y), **{**given, "devices": 3, "partition": "iid"})
    assert "uint8" not in told.getvalue()
    assert "lie on no device" not in told.getvalue()


def test_a_folder_that_was_there_and_empty_is_so_again_when_a_run_is_refused_and_takes_the_next(
    plain_sgd_file, data, tmp_path
):
    for _ in range(2):
        with pytest.raises(InvalidSettingError, match="The cohort has 7"):
            edgefl.simulate(plain_sgd_file, data, out=tmp_path, **{**SETTINGS, "cohort": 7})
        assert not any(tmp_path.iterdir())
    edgefl.simulate(plain_sgd_file, data, out=tmp_path, **{**SETTINGS, "rounds": 1, "workers": 1})


def test_a_file_in_the_folder_s_place_is_refused(plain_sgd_file, data, tmp_path):
    (tmp_path / "run").write_text("mine")
    with pytest.raises(InvalidSettingError, match="Expected a folder for the results"):
        edgefl.simulate(plain_sgd_file, data, out=tmp_path / "run", **SETTINGS)
    with pytest.raises(InvalidSettingError, match="File name too long"):
        edgefl.simulate(plain_sgd_file, data, out=tmp_path / ("a" * 300), **SETTINGS)


def test_data_that_does_not_fit_is_named_with_its_array_and_row(plain_sgd_file, data):
    x, y = data
    for given, message in [
        ((x[:, :7], y), r"Input .* expects shape \(rows, 20\)"),
        ((x, y + 5 * (np.arange(len(y)) == 17)), "from 0 to 4, got .* in row 17"),
        ((np.where(np.arange(len(x))[:, None] == 9, np.nan, x), y), "in row 9"),
        ((x, y[:-1]), "equal numbers of rows"),
        ("digit", "no data set and no file 'digit'"),
        (3, "Expected the name of a data set"),
        ("nowhere.npz", "no such file"),
        ((x.astype(str), y), "expects numbers"),
    ]:
        with pytest.raises(DataError, match=message):
            edgefl.simulate(plain_sgd_file, given, **SETTINGS)


def test_a_run_that_no_device_can_take_part_in_fails_and_says_why(plain_sgd_file, data):
    with pytest.raises(EdgeflError, match="simulated seconds") as caught:
        edgefl.simulate(plain_sgd_file, data, minimum_examples=1000, **SETTINGS)
    assert isinstance(caught.value, RunError)
    assert "takes part with at least 1000" in str(caught.value)


def test_the_command_prints_a_summary_and_leaves_a_folder(plain_sgd_file, data, tmp_path):
    np.savetxt(
        tmp_path / "data.csv",
        np.column_stack([data[0], data[1]]),
        delimiter=",",
        header=",".join([*(f"x{number}" for number in range(20)), "kind"]),
        comments="",
    )
    words = [
        *("simulate", plain_sgd_file, "--data", tmp_path / "data.csv", "--devices", 4, "--rounds", 2, "--cohort", 2),
        *("--partition", "pathological:2", "-o", tmp_path / "run", "--workers", 1),
    ]
    command = [sys.executable, "-m", "edgefl.cli.main", *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "2 rounds: " in done.stdout
    assert "simulated" in done.stderr
    settings = json.loads((tmp_path / "run" / "settings.json").read_text())
    assert settings["cohort"] == 2
    again = subprocess.run(command, capture_output=True, text=True, check=False)
    assert again.returncode == 4
    assert "--resume" in again.stderr
    refused = subprocess.run([*command[:-6], "--cohort", "0"], capture_output=True, text=True, check=False)
    assert refused.returncode == 4
    assert "--cohort expects a number from 1" in refused.stderr
    refused = subprocess.run([*command[:-4], "--held-out", "1"], capture_output=True, text=True, check=False)
    assert refused.returncode == 4
    assert "--held-out expects a share" in refused.stderr
    refused = subprocess.run([*command[:-4], "--batch-size", "16"], capture_output=True, text=True, check=False)
    assert "Convert the model again with a larger --batch-size." in refused.stderr


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("rounds", None, "rounds expects a whole number, got None"),
        ("rounds", 2.5, "rounds expects a whole number, got 2.5"),
        ("cohort", "3", "cohort expects a whole number, got '3'"),
        ("devices", True, "devices expects a whole number, got True"),
        ("partition", 3, "partition expects text or a Partitioner, got 3"),
        ("strategy", None, "strategy expects text, got None"),
        ("held_out", "0.1", "held_out expects a number, got '0.1'"),
        ("feature_columns", 5, "feature_columns expects a list, got 5"),
        ("pace", 0.5, "pace expects a Pace or None, got 0.5"),
        ("profile", 5, "profile expects text, a path, a dict, a FleetProfile or None, got 5"),
        ("until", 0.9, "until expects a dict or None, got 0.9"),
        ("personalise", "1", "personalise expects a whole number or a Personalisation, got '1'"),
        ("engine", None, "engine expects text, got None"),
        ("out", 5, "out expects text, a path or None, got 5"),
        ("resume", "yes", "resume expects True or False, got 'yes'"),
        ("verbose", 1, "verbose expects True or False or None, got 1"),
        ("on_round", "print", "on_round expects a function or None, got 'print'"),
        ("workers", 1.0, "workers expects a whole number, got 1.0"),
        ("epochs", 1.5, "epochs expects a whole number, got 1.5"),
        ("learning_rate", "small", "learning_rate expects a number, got 'small'"),
        ("codec", 16, "codec expects text, got 16"),
    ],
)
def test_an_argument_of_another_kind_is_named_with_what_it_expects(plain_sgd_file, data, name, value, said):
    with pytest.raises(InvalidSettingError) as caught:
        edgefl.simulate(plain_sgd_file, data, **{**SETTINGS, name: value})
    assert said in str(caught.value)


def test_numbers_of_numpy_are_numbers(plain_sgd_file, data):
    given = {**SETTINGS, "rounds": np.int64(1), "cohort": np.int32(3), "seed": np.uint8(3), "held_out": np.float32(0.1)}
    assert len(edgefl.simulate(plain_sgd_file, data, **given).rounds) == 1


def test_zero_is_a_seed_like_any_other(plain_sgd_file, data, tmp_path):
    np.savez(tmp_path / "rows.npz", x=data[0], y=data[1])
    few = ["--devices", 6, "--rounds", 2, "--cohort", 3, "--workers", 1, "--quiet"]
    files = ["simulate", plain_sgd_file, "--data", tmp_path / "rows.npz"]
    done = command_line(*files, *few, "--seed", 0, "-o", tmp_path / "run")
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "run" / "settings.json").read_text())["seed"] == 0
    settings = {"devices": 6, "rounds": 2, "cohort": 3, "workers": 1}
    by_seed = {seed: edgefl.simulate(plain_sgd_file, data, **settings, seed=seed).weights for seed in (0, 1)}
    np.testing.assert_array_equal(by_seed[0], np.load(tmp_path / "run" / "weights.npy"))
    assert not np.array_equal(by_seed[0], by_seed[1])


def test_help_tells_the_defaults_of_a_simulation_where_a_server_has_others():
    command = [sys.executable, "-m", "edgefl.cli.main", "simulate", "--help"]
    told = subprocess.run(command, capture_output=True, text=True, check=True, env={**os.environ, "COLUMNS": "200"})
    options = {line.split()[1]: line for line in told.stdout.splitlines() if line[1:].lstrip().startswith("--")}
    assert "[default: (1)]" in options["--seed"]
    assert "[default: (the cohort)]" in options["--minimum"]
    for name in ("--held-out", "--local-test", "--drop-out"):
        assert " SHARE " in options[name]  # not a range with an end that is refused
        assert "below 1" in options[name]
    assert "[x>=1]" in options["--devices"]
    assert "[0<=x<=1024]" in options["--workers"]
