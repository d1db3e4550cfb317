"""Real devices evaluate what they train, through kills of theirs and of the server: as pooled data would."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import numpy as np
import pytest

from edgefl.metrics import finalise
from edgefl_device_runtime.training import TrainableModel
from real_processes import Fleet, Process, write_identity


def pooled(model, weights: np.ndarray, files) -> dict[str, float]:
    """Loss and metrics on the rows of all files together."""
    trained = TrainableModel(model)
    trained.weights = weights
    data = [np.load(file) for file in files]
    x, y = (np.concatenate([each[name] for each in data]) for name in ("x", "y"))
    return finalise(trained.manifest.metrics, trained.evaluate_states(x, y))


def weights_after(fleet: Fleet, run: str, number: int) -> np.ndarray:
    return np.frombuffer(fleet.operator.download(f"/v1/runs/{run}/weights?round={number}")[0], "<f4")


def until_over(fleet: Fleet, run: str) -> dict:
    end = time.monotonic() + 120
    while time.monotonic() < end:
        status = fleet.status(run)
        if status["state"] != "active" and not status["evaluating"]:
            return status
        time.sleep(0.2)
    raise AssertionError(f"the run goes on: {status}")


def test_devices_evaluate_each_version_as_their_pooled_data_would(fleet, write_data, mlp_file) -> None:
    files = [write_data(f"d{i}", 12 + 90 * i, i) for i in range(3)]
    for i in range(3):
        write_identity(fleet.folder / f"d{i}", i)
    fleet.start_server()
    run = fleet.create_run(
        mlp_file, "kitchen", rounds=3, target=2, evaluate_every=2, evaluate_cohort=3, shown_from=3, seed=3
    )
    processes = [fleet.start_device(f"d{i}", "kitchen", file) for i, file in enumerate(files)]
    for process in processes:
        process.finish(180)
    status = until_over(fleet, run)
    assert [(each["version"], each["state"]) for each in status["evaluations"]] == [
        (0, "done"),
        (2, "done"),
        (3, "done"),
    ]
    for found in status["evaluations"]:
        weights = weights_after(fleet, run, found["version"])
        wanted = pooled(mlp_file, weights, files)
        values = {"loss": found["loss"], **found["metrics"]}
        assert set(values) == set(wanted)
        for name, value in wanted.items():
            assert values[name] == pytest.approx(value, rel=1e-6), name
        assert found["num_examples"] == sum(len(np.load(file)["x"]) for file in files)
        own = [pooled(mlp_file, weights, [file])["loss"] for file in files]
        assert found["findings"]["spread"]["loss"]["mean"] == pytest.approx(np.mean(own), rel=1e-6)
        assert found["findings"]["spread"]["loss"]["deviation"] == pytest.approx(np.std(own), rel=1e-5)
    watched = Process.start("run", "watch", run, "--state", fleet.state, "--format", "json")
    assert watched.finish()["evaluations"] == status["evaluations"]
    assert "version    2 evaluated on 3 devices; loss" in watched.errors()


def test_evaluations_survive_kills_of_devices_and_of_the_server(fleet, write_data, mlp_file) -> None:
    files = [write_data(f"d{i}", 40 + 10 * i, i) for i in range(2)]
    for i in range(2):
        write_identity(fleet.folder / f"d{i}", i)
    fleet.start_server()
    run = fleet.create_run(mlp_file, "kitchen", rounds=4, target=2, evaluate_every=1, seed=3, lease_seconds=5)
    random = np.random.default_rng(5)
    devices = {i: fleet.start_device(f"d{i}", "kitchen", files[i]) for i in range(2)}
    for _ in range(6):
        time.sleep(float(random.uniform(0.1, 0.7)))
        victim = int(random.integers(3))
        if victim == 2:
            fleet.server.kill()
            fleet.start_server()
        else:
            devices[victim].kill()
            devices[victim] = fleet.start_device(f"d{victim}", "kitchen", files[victim])
    status = until_over(fleet, run)
    done = {each["version"]: each for each in status["evaluations"] if each["state"] == "done"}
    assert status["state"] == "done"
    assert {0, 4} <= set(done)
    for version, found in done.items():
        wanted = pooled(mlp_file, weights_after(fleet, run, version), files)
        assert found["loss"] == pytest.approx(wanted["loss"], rel=1e-6)
        assert found["num_examples"] == 90
        assert found["outcomes"]["folded"] == 2


def test_devices_test_weights_before_and_after_they_train_on_rows_that_they_do_not_train_on(
    fleet, write_data, mlp_file, tmp_path
) -> None:
    files = [write_data(f"d{i}", 40 + 20 * i, i) for i in range(2)]
    parts = []
    for i, file in enumerate(files):
        write_identity(fleet.folder / f"d{i}", i)
        data = np.load(file)
        parts.append(tmp_path / f"part{i}.npz")
        np.savez(parts[-1], **{name: data[name][-int(0.3 * len(data[name])) :] for name in data})
    fleet.start_server()
    run = fleet.create_run(mlp_file, "kitchen", rounds=2, target=2, local_test=0.3, epochs=3)
    processes = [fleet.start_device(f"d{i}", "kitchen", file) for i, file in enumerate(files)]
    for process in processes:
        process.finish(180)
    status = fleet.status(run)
    for entry in status["history"]:
        wanted = pooled(mlp_file, weights_after(fleet, run, entry["version"]), parts)
        for name, value in wanted.items():
            assert entry["metrics"][f"before/{name}"] == pytest.approx(value, rel=1e-6)
        assert entry["metrics"]["after/loss"] != entry["metrics"]["before/loss"]
        assert entry["num_examples"] == 28 + 42


def children_of(process: Process) -> list[int]:
    tasks = Path(f"/proc/{process.child.pid}/task")
    return [int(each) for task in tasks.iterdir() for each in (task / "children").read_text().split()]


@pytest.mark.slow
def test_the_server_evaluates_each_version_on_the_operators_data_whoever_is_killed(
    fleet, write_data, mlp_file, tmp_path
) -> None:
    data, held = write_data("d", 30), write_data("held", 200, 9)
    write_identity(fleet.folder / "d", 0)
    fleet.start_server()
    fleet.token("kitchen")
    creating = Process.start(
        *("run", "create", mlp_file, "--population", "kitchen", "--rounds", "3", "--target", "1", "--seed", "1"),
        *("--evaluate-on", held, "--state", fleet.state, "--format", "json"),
    )
    run = creating.finish()["run"]
    held.unlink()  # the server has it
    device = fleet.start_device("d", "kitchen", data)
    killed = 0
    end = time.monotonic() + 60
    while killed < 2 and time.monotonic() < end:
        for child in children_of(fleet.server):
            os.kill(child, signal.SIGKILL)
            killed += 1
        time.sleep(0.1)
    fleet.server.kill()
    fleet.start_server()
    device.finish(180)
    watched = Process.start("run", "watch", run, "--state", fleet.state, "--format", "json")
    status = watched.finish(180)
    assert [(each["version"], each["state"]) for each in status["central"]] == [(v, "done") for v in range(4)]
    again = write_data("held", 200, 9)
    for each in status["central"]:
        wanted = pooled(mlp_file, weights_after(fleet, run, each["version"]), [again])
        assert each["examples"] == 200
        assert each["metrics"] == pytest.approx(wanted, rel=1e-6)
    assert "version    3 evaluated on 200 examples of the server's; loss" in watched.errors()


def test_data_that_does_not_fit_is_told_with_the_version_and_stops_nothing(
    fleet, write_data, mlp_file, tmp_path
) -> None:
    np.savez(tmp_path / "wrong.npz", x=np.ones((4, 7), np.float32), y=np.zeros(4, np.int32))
    fleet.start_server()
    fleet.token("kitchen")
    digest = fleet.operator.upload("/v1/data", {}, (tmp_path / "wrong.npz").read_bytes())["data"]
    run = fleet.create_run(mlp_file, "kitchen", rounds=1, target=1, evaluate_on=digest)
    fleet.start_device("d", "kitchen", write_data("d")).finish()
    end = time.monotonic() + 90
    while fleet.status(run)["central_pending"] and time.monotonic() < end:
        time.sleep(0.2)
    status = fleet.status(run)
    assert status["state"] == "done"
    assert [each["state"] for each in status["central"]] == ["failed", "failed"]
    assert "expects shape (rows, 20), got (4, 7)" in status["central"][0]["why"]
    refused = Process.start(
        *("run", "create", mlp_file, "--population", "kitchen", "--rounds", "1", "--target", "1"),
        *("--evaluate-on", mlp_file, "--state", fleet.state),
    )
    assert refused.child.wait(60) != 0
    assert "--evaluate-on expects an .npz file" in refused.errors()
