"""Runs that share real devices, and that are paused, rolled back, and begun with weights from elsewhere."""

from __future__ import annotations

import json
import time

import numpy as np

from real_processes import PATIENCE
from server_process import edgefl

FOLDS = 6


def wait_for(condition):
    ends = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < ends
        time.sleep(0.02)


def test_two_runs_share_the_devices_of_a_population(fleet, write_data, mlp_file):
    fleet.start_server()
    older, newer = (
        fleet.create_run(mlp_file, "kitchen", rounds=FOLDS, target=2, seed=3, schedule=schedule)
        for schedule in ("synchronous", "buffered")
    )
    for i in range(2):
        fleet.start_device(f"d{i}", "kitchen", write_data(f"d{i}", 30, i))
    for device in fleet.devices:
        device.finish()
    assert [fleet.status(run)["state"] for run in (older, newer)] == ["done", "done"]
    tasks = [run for (run,) in fleet.query("SELECT run FROM assignments ORDER BY assigned_clock, task_id")]
    # Neither waits for the end of the other: halfway each has had its share, up to what is under way.
    half = tasks[: 2 * FOLDS]
    assert min(half.count(older), half.count(newer)) >= FOLDS - 3


def test_verbs_of_a_run_pause_it_tell_its_lineage_and_take_it_back(fleet, write_data, mlp_file, tmp_path):
    fleet.start_server()
    run = fleet.create_run(mlp_file, "kitchen", rounds=300, target=2, seed=3)

    def verb(*words, code=0):
        done = edgefl("run", *words, "--state", fleet.state, "--format", "json")
        assert done.returncode == code, done.stderr
        return json.loads(done.stdout) if code == 0 else done.stderr

    for i in range(2):
        fleet.start_device(f"d{i}", "kitchen", write_data(f"d{i}", 30, i))
    wait_for(lambda: fleet.status(run)["round"] > 3)
    assert verb("pause", run)["state"] == "paused"
    wait_for(lambda: fleet.status(run)["tasks_open"] == 0)
    time.sleep(0.2)
    still = fleet.status(run)["round"]
    versions = verb("history", run)["versions"]
    assert [each["parent"] for each in versions] == [None, *range(len(versions) - 1)]
    assert all(each["devices"] == 2 and each["bytes_up"] > 0 for each in versions[1:])
    difference = verb("diff", run, "0", "1")
    assert difference["difference"] > 0
    assert sum(each["difference"] ** 2 for each in difference["parameters"]) > 0
    rolled = verb("rollback", run, "--to", "1")
    assert (rolled["state"], rolled["weights_hash"]) == ("paused", versions[1]["weights_hash"])
    assert fleet.status(run)["round"] == still + 1
    assert "no version 999" in verb("rollback", run, "--to", "999", code=53)
    file = tmp_path / "weights.npy"
    verb("weights", run, "--round", "1", "-o", file)
    words = ("--population", "kitchen", "--rounds", "1", "--target", "2", "--weights", file)
    second = verb("create", mlp_file, *words)
    assert second["initial_weights_hash"] == versions[1]["weights_hash"]
    wait_for(lambda: fleet.status(second["run"])["state"] == "done")
    verb("resume", run)
    wait_for(lambda: fleet.status(run)["round"] > still + 2)
    log = verb("log", run)
    assert log["rollbacks"] == {str(len(versions)): 1}
    verb("stop", run)
    for device in fleet.devices:
        device.finish()
    np.save(file, np.zeros(3, np.float32))
    assert "layout" in verb("create", mlp_file, *words, code=4)
