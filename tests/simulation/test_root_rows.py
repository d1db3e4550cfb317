"""A root set in a simulation: drawn rows, an honest device that is always there, and FLTrust with a bad majority."""

from __future__ import annotations

import json

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

import edgefl
from edgefl.errors import InvalidSettingError
from edgefl.hashing import weights_hash
from edgefl_simulation import Steady, run_folder
from edgefl_simulation.cli import simulate as verb
from edgefl_simulation.data import DataSet
from edgefl_simulation.fleet import ROOT_DEVICE
from edgefl_simulation.preparing import Division, divide

TIMES = {"seconds", "clock", "simulated", "device_seconds", "bytes_down", "bytes_up"}
SETTINGS = {"devices": 8, "cohort": 4, "rounds": 3, "seed": 5, "epochs": 2}
ROOTED = {**SETTINGS, "rule": "fltrust", "root_rows": 24}
MAJORITY = {"attackers": [{"kind": "sign-flip", "share": 0.625, "factor": 5.0}]}


@pytest.fixture(scope="module")
def data():
    """Enough rows to learn the classes from."""
    random = np.random.default_rng(4)
    x = random.normal(size=(900, 20)).astype(np.float32)
    return x, np.argmax(x[:, :5] + x[:, 5:10], axis=1).astype(np.int32)


def bits(history):
    rows = [{name: value for name, value in row.items() if name not in TIMES} for row in history.rounds]
    return rows, weights_hash(history.weights)


def test_a_majority_of_attackers_ruins_averaging_and_hardly_touches_fltrust(plain_sgd_file, data):
    settings = {**SETTINGS, "rounds": 15, "cohort": 8, "workers": 1, "evaluate_devices": 0, "epochs": 3}

    def accuracy(**more):
        history = edgefl.simulate(plain_sgd_file, data, **settings, **more)
        assert len(history.rounds) == 15
        return history.metric("accuracy")[-1]

    rooted = {"rule": "fltrust", "root_rows": 100}
    clean, ruined = accuracy(), accuracy(profile=MAJORITY)
    trusting, trusted = accuracy(profile=MAJORITY, **rooted), accuracy(**rooted)
    assert clean > ruined + 0.4
    assert trusted > clean - 0.05
    assert trusting > clean - 0.1


def test_the_bits_are_the_same_with_more_workers_after_a_break_and_on_a_real_server(
    plain_sgd_file, data, tmp_path, monkeypatch
):
    monkeypatch.setattr(run_folder, "_PAUSE", 0.0)
    x, y = data
    settings = {**ROOTED, "server_optimizer": "adam", "local_test": 0.2}

    def run(**more):
        return bits(edgefl.simulate(plain_sgd_file, (x[:300], y[:300]), **{**settings, **more}))

    def stop(row):
        if row["round"] == 2:
            raise KeyboardInterrupt

    whole = run(workers=1)
    assert [row["outcomes"] for row in whole[0]] == [{"done": 4}] * 3
    assert run(workers=2) == whole
    assert run(engine="http") == whole
    folder = {"workers": 1, "out": tmp_path / "run"}
    with pytest.raises(KeyboardInterrupt):
        run(**folder, on_round=stop)
    assert run(**folder, resume=True) == whole
    with pytest.raises(InvalidSettingError, match="root_rows is 24 there, got 25"):
        run(**folder, resume=True, root_rows=25)


def test_the_rows_are_drawn_before_all_others_are_divided_and_no_other_device_has_them():
    data = DataSet({"x": np.arange(100.0)[:, None], "y": np.arange(100)})
    without, rooted = (divide(data, Division("iid", 4, seed=3, root_rows=rows), None) for rows in (0, 30))
    assert (len(without.root), len(rooted.root), rooted.left_over(100)) == (0, 30, 0)
    assert rooted.held_out.tolist() == without.held_out.tolist()  # what is tested on is not touched
    everything = np.concatenate([rooted.root, rooted.held_out, *rooted.parts])
    assert sorted(everything.tolist()) == list(range(100))
    again, other = (divide(data, Division("iid", 4, seed=seed, root_rows=30), None).root for seed in (3, 4))
    assert again.tolist() == rooted.root.tolist() != other.tolist()
    with pytest.raises(InvalidSettingError, match=r"root_rows expects fewer than the 90 rows .* got 90"):
        divide(data, Division("iid", 4, root_rows=90), None)


def test_the_root_device_is_honest_and_there_while_all_others_attack_drop_out_or_are_drawn(plain_sgd_file, data):
    everybody = {"attackers": [{"kind": "free-rider", "share": 1.0}]}
    with pytest.raises(edgefl.errors.RunError, match="nobody to trust"):  # all zeros but its own
        edgefl.simulate(plain_sgd_file, data, **ROOTED, profile=everybody, workers=1)
    drawn = edgefl.simulate(plain_sgd_file, data, **ROOTED, selection="random", workers=1)
    assert [row["outcomes"] for row in drawn.rounds] == [{"done": 4}] * 3
    away = {"deadline_seconds": 60.0, "minimum": 1, "pace": Steady(drop_out=0.5)}
    history = edgefl.simulate(plain_sgd_file, data, **ROOTED, **away, workers=1)
    assert [row["state"] for row in history.rounds] == ["done"] * 3
    assert min(row["outcomes"]["done"] for row in history.rounds) < 4


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"rule": "fltrust"}, "rule fltrust expects root_rows"),
        ({"root_rows": 20}, "root_rows has no meaning with rule as it is"),
        ({"rule": "median", "root_rows": 20}, "root_rows has no meaning with rule median"),
        ({"rule": "fltrust", "root_rows": 1}, "root_rows 1 is below minimum_examples 2"),
        ({"rule": "fltrust", "root_rows": -1}, "root_rows expects a whole number from 0"),
        ({"rule": "fltrust", "root_rows": 20, "schedule": "buffered"}, "root_rows does not go with schedule buffered"),
        ({"rule": "fltrust", "root_device": ROOT_DEVICE}, "no argument 'root_device'"),
        ({"rule": "fltrust", "root_rows": 20, "cohort": 9}, "The cohort has 9 devices, and the fleet 8"),
    ],
)
def test_what_cannot_be_is_refused_by_the_names_of_a_simulation(plain_sgd_file, data, settings, message):
    with pytest.raises(InvalidSettingError, match=message):
        edgefl.simulate(plain_sgd_file, data, **{**SETTINGS, **settings})


def test_the_command_takes_it_and_writes_it_down(plain_sgd_file, data, tmp_path, capsys):
    np.savez(tmp_path / "rows.npz", x=data[0], y=data[1])
    app = typer.Typer()
    app.command()(verb)
    words = [plain_sgd_file, "--data", tmp_path / "rows.npz", "--devices", 4, "--cohort", 2, "--rounds", 1]
    more = ["--rule", "fltrust", "--root-rows", 30, "--workers", 1, "-o", tmp_path / "run", "--quiet"]
    result = CliRunner().invoke(app, list(map(str, words + more)))
    assert result.exit_code == 0, result.output
    kept = json.loads((tmp_path / "run" / "settings.json").read_text())
    assert (kept["root_rows"], kept["root_device"]) == (30, ROOT_DEVICE)
    refused = CliRunner().invoke(app, list(map(str, [*words, "--rule", "fltrust"])))
    assert "--rule fltrust expects --root-rows" in str(refused.exception)
