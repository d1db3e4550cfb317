"""Runs side by side: quality under a budget, cost to a target, robustness."""

from __future__ import annotations

import json
import re
import subprocess
import sys

import numpy as np
import pytest

from edgefl.errors import InvalidSettingError, StorageError
from edgefl_server.aggregation import STRATEGIES
from edgefl_server.aggregation.schedules import SCHEDULES
from edgefl_simulation.cli_compare import compare_runs
from edgefl_simulation.comparing import (
    Budget,
    Finished,
    compare,
    cost_to_target,
    points,
    quality_under_budget,
    read_run,
)
from extension.toy_schedule import Buffered, Discounted


def row(number, accuracy=None, seconds=10.0, **more):
    central = {} if accuracy is None else {"central": {"accuracy": accuracy, "loss": 1 - accuracy}}
    spent = {"bytes_down": 300, "bytes_up": 100, "device_seconds": 30.0, "energy_joules": 60.0}
    return {"round": number, "clock": number * seconds, "outcomes": {"done": 4}, **spent, **central, **more}


FAST = Finished(
    "fast", {"seed": 1, "profile": None}, {"central": {"accuracy": 0.1}}, [row(1, 0.5), row(2), row(3, 0.8)]
)
SLOW = Finished(
    "slow",
    {"seed": 1, "profile": {"attackers": [{"kind": "noise"}]}},
    {},
    [row(1, 0.4, 25.0, attackers=1), row(2, 0.9, 25.0, attackers=3)],
)


def test_a_budget_that_is_no_number_is_refused():
    with pytest.raises(InvalidSettingError, match="A budget of seconds expects a number of at least 0, got nan"):
        Budget(seconds=float("nan"))


def test_spending_adds_up_over_rounds_that_were_not_evaluated_as_well():
    first, second, third = points(FAST, "accuracy")
    assert (first.value, first.rounds, first.bytes) == (0.1, 0, 0)
    assert (second.value, second.seconds, second.bytes, second.joules) == (0.5, 10.0, 400, 60.0)
    assert (third.value, third.rounds, third.bytes, third.device_seconds) == (0.8, 3, 1200, 90.0)


def test_quality_is_that_of_the_latest_evaluation_within_every_budget():
    found = points(FAST, "accuracy")
    assert quality_under_budget(found, Budget(seconds=29.0)).value == 0.5
    assert quality_under_budget(found, Budget(seconds=30.0)).value == 0.8
    assert quality_under_budget(found, Budget(seconds=99.0, bytes=500)).value == 0.5
    assert quality_under_budget(found, Budget(joules=59.0)).value == 0.1
    assert quality_under_budget(points(SLOW, "accuracy"), Budget(rounds=0)) is None


def test_the_cost_is_that_of_the_first_evaluation_that_reaches_the_target():
    found = points(FAST, "accuracy")
    assert cost_to_target(found, "accuracy", 0.5).seconds == 10.0
    assert cost_to_target(found, "accuracy", 0.81) is None
    assert cost_to_target(points(SLOW, "loss"), "loss", 0.2).rounds == 2


def test_without_a_budget_runs_are_compared_at_the_end_of_the_shortest_and_robustness_is_against_the_first():
    result = compare([FAST, SLOW], "accuracy", Budget(), 0.85)
    quality = result["quality_under_budget"]
    assert quality["budget"] == {"seconds": 30.0}
    assert {name: run["value"] for name, run in quality["runs"].items()} == {"fast": 0.8, "slow": 0.4}
    assert result["cost_to_target"]["runs"]["fast"] is None
    assert result["cost_to_target"]["runs"]["slow"]["seconds"] == 50.0
    beside = result["robustness"]["runs"]["slow"]
    assert beside["change"] == pytest.approx(0.1)
    assert beside["seconds_ratio"] == pytest.approx(5 / 3)
    assert (beside["attackers"], beside["updates"]) == (4, 8)
    assert beside["differs_in"] == ["profile"]
    assert result["robustness"]["runs"]["fast"]["differs_in"] == []
    data = [Finished(name, {"data": {name: [[1], "<f4", 0]}}, {}, FAST.rounds) for name in ("one", "other")]
    assert compare(data, "loss", Budget())["robustness"]["runs"]["other"]["differs_in"] == ["data"]
    assert "robustness" not in compare([FAST], "accuracy", Budget())


def test_a_metric_that_is_only_known_over_devices_is_its_mean():
    run = Finished("a", {}, {}, [{"round": 1, "clock": 1.0, "federated": {"devices": 3, "loss": {"mean": 0.5}}}])
    assert points(run, "loss")[0].value == 0.5
    with pytest.raises(InvalidSettingError, match="a has no metric 'accuracy'; it has devices, loss"):
        points(run, "accuracy")
    with pytest.raises(InvalidSettingError, match="never evaluated"):
        points(Finished("a", {}, {}, [row(1)]), "accuracy")
    with pytest.raises(InvalidSettingError, match="given twice"):
        compare([FAST, FAST], "accuracy", Budget())


def folder_of(run, folder):
    folder.mkdir()
    (folder / "settings.json").write_text(json.dumps(run.settings))
    (folder / "rounds.jsonl").write_text("".join(json.dumps(each) + "\n" for each in run.rounds))
    (folder / "summary.json").write_text(json.dumps({"initial": run.initial}))
    return folder


def test_a_run_that_is_under_way_is_read_and_a_folder_that_is_none_is_refused(tmp_path):
    folder = folder_of(FAST, tmp_path / "run")
    (folder / "summary.json").unlink()
    (folder / "rounds.jsonl").open("a").write('{"round": 4, "cut sh')
    assert [each["round"] for each in read_run(folder).rounds] == [1, 2, 3]
    with pytest.raises(InvalidSettingError, match="Expected the folder of a simulation"):
        read_run(tmp_path)
    (folder / "rounds.jsonl").write_text("nonsense\n")
    with pytest.raises(StorageError, match="damaged in line 1"):
        read_run(folder)


def test_the_command_prints_tables_no_wider_than_a_terminal_or_plain_values(tmp_path):
    runs = [folder_of(run, tmp_path / f"a-run-with-a-name-that-is-rather-long-{run.name}") for run in (FAST, SLOW)]
    command = [sys.executable, "-m", "edgefl.cli.main", "compare", *map(str, runs)]
    done = subprocess.run([*command, "--target", "accuracy=0.85"], capture_output=True, text=True, check=True)
    lines = done.stdout.splitlines()
    assert max(map(len, lines)) <= 80
    assert [line for line in lines if line and not line.startswith(" ")] == [
        "Quality under a budget of 30 simulated seconds",
        "Cost to a target: accuracy 0.85",
        *[line for line in lines if line.startswith("Robustness, against")],
    ]
    assert "not reached" in done.stdout
    assert re.search(r"\+0\.1000\s+× 1\.67\s+× 0\.67\s+50%\s+profile", done.stdout)
    words = ["--format", "json", "--budget-bytes", "500", "--metric", "loss"]
    result = json.loads(subprocess.run([*command, *words], capture_output=True, text=True, check=True).stdout)
    assert result["quality_under_budget"]["budget"] == {"bytes": 500}
    refused = subprocess.run([*command, "--target", "good"], capture_output=True, text=True, check=False)
    assert refused.returncode == 4
    assert "--target expects METRIC=VALUE" in refused.stderr


def test_a_budget_of_many_bytes_is_said_in_megabytes_and_settings_by_the_names_of_their_options(tmp_path, capsys):
    other = Finished("other", {"hyperparameters": {"rule": "median"}}, {}, SLOW.rounds)
    same = Finished("same", {"hyperparameters": {"rule": "mean"}}, {}, SLOW.rounds)
    compare_runs([folder_of(run, tmp_path / run.name) for run in (same, other)], budget_bytes=150_000_000)
    said = capsys.readouterr().out
    assert "under a budget of 150 MB\n" in said
    assert re.search(r" rule\n", said)
    assert "hyperparameters" not in said


def test_synchronous_and_buffered_schedules_compare_by_their_time_to_a_loss(plain_sgd_file, owned, monkeypatch):
    import edgefl

    monkeypatch.setitem(SCHEDULES._entries, "toy-buffered", Buffered)
    monkeypatch.setitem(STRATEGIES._entries, "discounted", Discounted)
    rows = owned(3, 80)
    slow = {"like": "pi-zero-2", "share": 0.25, "compute": {"gflops": 1e-4}}
    settings = {
        **{"devices": 8, "rounds": 16, "cohort": 4, "workers": 1, "epochs": 2, "seed": 5, "evaluate_devices": 0},
        **{"profile": {"devices": [{"like": "pi4", "share": 0.75}, slow]}, "held_out": 0.25},
    }
    histories = {
        "synchronous": edgefl.simulate(plain_sgd_file, (rows["x"], rows["y"]), **settings),
        "buffered": edgefl.simulate(
            plain_sgd_file,
            (rows["x"], rows["y"]),
            **{**settings, "schedule": "toy-buffered", "strategy": "discounted", "over_selection": 2, "rounds": 24},
        ),
    }
    runs = [Finished(name, {}, each.initial, each.rounds) for name, each in histories.items()]
    target = max(min(each.metric("loss")) for each in histories.values())
    result = compare(runs, "loss", Budget(), target)["cost_to_target"]["runs"]
    assert result["buffered"]["seconds"] < 0.7 * result["synchronous"]["seconds"], "nobody waits for the slow ones"
    assert any(max(row.get("staleness", [0])) > 0 for row in histories["buffered"].rounds)
    for row in histories["buffered"].rounds:
        parts = dict(row["simulated"])
        assert parts.pop("seconds") == pytest.approx(sum(parts.values()))


def test_what_a_simulation_leaves_can_be_compared(plain_sgd_file, owned, tmp_path):
    import edgefl

    rows = owned(3, 40)
    settings = {"devices": 6, "rounds": 2, "cohort": 3, "workers": 1, "profile": "pi4", "evaluate_devices": 0}
    history = edgefl.simulate(plain_sgd_file, (rows["x"], rows["y"]), out=tmp_path / "run", **settings)
    *_, last = points(read_run(tmp_path / "run"), "accuracy")
    assert last.value == history.final["accuracy"]
    assert last.seconds == history.rounds[-1]["clock"] > 0
    bytes_up = 3 * 2 * 4 * history.weights.size
    assert sum(each["bytes_up"] for each in history.rounds) == bytes_up
    assert last.bytes == bytes_up + sum(each["bytes_down"] for each in history.rounds)
    assert np.isclose(last.joules, 3.1 * last.device_seconds)
