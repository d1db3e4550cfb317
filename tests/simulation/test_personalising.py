"""How good the weights are for devices that have adapted them to themselves: before and after local training."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest

import edgefl
from edgefl.errors import InvalidSettingError
from edgefl.hashing import weights_hash
from edgefl_simulation import Personalisation, run_folder

SETTINGS = {"partition": "natural-id", "rounds": 3, "cohort": 3, "seed": 5, "held_out": 0, "local_test": 0.25}


@pytest.fixture
def contrary():
    """Devices that agree on nothing: each calls the classes by names of its own."""

    def contrary(devices=4, rows=64):
        x = np.random.default_rng(0).normal(size=(devices * rows, 20)).astype(np.float32)
        kind, owner = np.arange(len(x)) % 5, np.repeat(np.arange(devices), rows)
        x[np.arange(len(x)), kind] += 3
        y = (kind + owner) % 5
        return {"x": x, "y": y.astype(np.int32), "id": np.array([f"device-{number:06d}" for number in owner])}

    return contrary


def simulated(model, data, **more):
    return edgefl.simulate(model, data, **{**SETTINGS, "workers": 1, **more})


def rows_of(history):
    return [{**row, "seconds": 0} for row in history.rounds]


def test_devices_that_are_unlike_gain_by_training_for_themselves(plain_sgd_file, contrary):
    history = simulated(plain_sgd_file, contrary(), evaluate_devices=4, personalise=30)
    for row in [history.initial, *history.rounds]:
        found = row["personalised"]
        assert found["devices"] == 4
        assert found["before"] == {name: row["federated"][name] for name in found["before"]}
        assert found["after"]["accuracy"]["mean"] > found["before"]["accuracy"]["mean"] + 0.2
        after = found["after"]["accuracy"]
        assert after["worst_tenth"] <= after["quantiles"]["0.1"] <= after["quantiles"]["0.9"]
    assert history.summary()["personalised"] == history.rounds[-1]["personalised"]


@pytest.mark.parametrize("name", ["plain_sgd", "personal"])
def test_what_is_said_is_what_a_device_gets_that_trains_so(request, contrary, name):
    """Local parameters are trained with the others, and evaluated."""
    file = request.getfixturevalue(f"{name}_file")
    few = contrary(2, rows=16)  # of which each device trains on a batch, so that their order does not matter
    asked = Personalisation(max_steps=3, learning_rate=0.4)
    history = simulated(file, few, cohort=2, rounds=1, personalise=asked, local_test=0.5)
    losses = []
    for device in range(2):
        own = {array: few[array][16 * device : 16 * (device + 1)] for array in ("x", "y")}
        tests, trains = split_of(device)
        model = edgefl.TrainableModel(file)
        for _ in range(3):
            model.train_on_batch(own["x"][trains], own["y"][trains], learning_rate=0.4)
        losses.append(model.evaluate(own["x"][tests], own["y"][tests])["loss"])
    assert history.initial["personalised"]["after"]["loss"]["mean"] == pytest.approx(np.mean(losses), rel=1e-4)


def split_of(device):
    """Which of its 16 rows a device keeps for tests, and which it trains on."""
    from edgefl_simulation.draws import stream
    from edgefl_simulation.partitioning.base import shuffled

    order = shuffled(np.arange(16), np.random.Generator(stream(SETTINGS["seed"], "local test", device)))
    return np.sort(order[:8]), np.sort(order[8:])


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("personal", {"strategy": "scaffold"}),
        ("normalised", {"codec": "float16", "clip_norm": 0.3}),
        ("federated", {"strategy": "feddyn", "mu": 0.3}),
    ],
    ids=["local parameters and control variates", "random numbers and mixed rows", "proximal term and correction"],
)
def test_asking_changes_no_weights_and_any_number_of_workers_says_the_same(request, contrary, name, settings):
    model, data = request.getfixturevalue(f"{name}_file"), contrary()
    without = simulated(model, data, **settings)
    one = simulated(model, data, personalise=2, **settings)
    two = simulated(model, data, personalise=2, workers=2, **settings)
    assert weights_hash(one.weights) == weights_hash(two.weights) == weights_hash(without.weights)
    assert rows_of(one) == rows_of(two)
    personalised = [row.pop("personalised") for row in one.rounds]
    assert all(each["devices"] == 3 for each in personalised)
    assert rows_of(one) == rows_of(without)
    assert "personalised" not in without.summary()


def test_local_parameters_go_on_from_what_the_device_remembers(personal_file, contrary):
    """A head that stays on its device knows its device's names of the classes after some rounds."""
    settings = {"cohort": 4, "rounds": 12, "epochs": 10, "evaluate_devices": 4, "evaluate_every": 12}
    history = simulated(personal_file, contrary(), personalise=1, **settings)
    first, last = history.initial["personalised"], history.rounds[-1]["personalised"]
    # One epoch from the file's own head is not enough for that.
    assert first["after"]["accuracy"]["mean"] < 0.6 < last["after"]["accuracy"]["mean"]
    assert last["before"]["accuracy"]["mean"] > first["after"]["accuracy"]["mean"]


def test_a_run_that_was_broken_off_goes_on_to_the_same_figures(personal_file, contrary, tmp_path, monkeypatch):
    monkeypatch.setattr(run_folder, "_PAUSE", 0.0)
    data = contrary()
    whole = simulated(personal_file, data, personalise=1, out=tmp_path / "whole")

    def stop(row):
        if row["round"] == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        simulated(personal_file, data, personalise=1, out=tmp_path / "broken", on_round=stop)
    again = simulated(personal_file, data, personalise=1, out=tmp_path / "broken", resume=True)
    assert rows_of(again) == rows_of(whole)
    with pytest.raises(InvalidSettingError, match="personalise is"):
        simulated(personal_file, data, personalise=2, out=tmp_path / "broken", resume=True)
    lines = (tmp_path / "whole" / "rounds.jsonl").read_text().splitlines()
    assert all("personalised" in json.loads(line) for line in lines)


def test_devices_without_rows_for_tests_are_not_among_them(plain_sgd_file, contrary):
    data = contrary()
    few = np.r_[0:3, 64:256]  # the first device has three rows, of which none is a quarter
    found = simulated(
        plain_sgd_file, {name: array[few] for name, array in data.items()}, evaluate_devices=4, personalise=1
    )
    assert found.rounds[-1]["federated"]["devices"] == 4
    assert found.rounds[-1]["personalised"]["devices"] == 3


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"personalise": 1, "local_test": 0}, "local_test is 0"),
        ({"personalise": -1}, "above 0"),
    ],
)
def test_what_says_nothing_is_refused(plain_sgd_file, contrary, asked, said):
    with pytest.raises(InvalidSettingError, match=said):
        simulated(plain_sgd_file, contrary(), **asked)
    with pytest.raises(InvalidSettingError, match="above 0"):
        Personalisation()
    with pytest.raises(InvalidSettingError, match="above 0, got nan"):
        Personalisation(1, learning_rate=float("nan"))


def test_the_command_asks_and_shows_it(plain_sgd_file, contrary, tmp_path):
    np.savez(tmp_path / "data.npz", **contrary())
    command = [sys.executable, "-m", "edgefl", "simulate", plain_sgd_file, "--data", tmp_path / "data.npz"]
    command += ["--partition", "natural-id", "--rounds", "1", "--cohort", "4", "--workers", "1"]
    tested = [*command, "--local-test", "0.25", "--personalise-steps", "4", "--personalise-rate", "0.3"]
    done = subprocess.run([*tested, "--format", "json"], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)["personalised"]["devices"] == 4
    assert done.stderr.count("training:") == 2  # before and after
    refused = subprocess.run([*command, "--personalise", "1"], capture_output=True, text=True, check=False)
    assert refused.returncode == InvalidSettingError.exit_code
    assert "--local-test is 0" in refused.stderr
    assert "--local-test, as 0.2" in refused.stderr
