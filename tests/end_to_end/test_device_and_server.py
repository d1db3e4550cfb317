"""Real device processes work for a real server over HTTP."""

from __future__ import annotations

import shutil
import subprocess

import numpy as np
import pytest

import edgefl
from edgefl.hashing import weights_hash
from edgefl.model_file import ModelFile
from edgefl.wire.messages import Task
from edgefl_device_runtime.tasks import Examples, ModelTrainer, Received, perform
from edgefl_device_runtime.training import TrainableModel
from edgefl_server.aggregation import task_seed
from real_processes import Process, write_identity

ROUNDS, SEED, EPOCHS = 3, 11, 2


def federated_averaging(model, devices, rounds=ROUNDS):
    """The same run by hand: devices is {id: data file}; the weights after each round, in float64."""
    trainer = ModelTrainer(TrainableModel(model))
    manifest = trainer.manifest
    weights = ModelFile.read(model).initial_weights()
    for number in range(1, rounds + 1):
        total, examples = np.zeros(weights.size), 0
        for device, file in devices.items():
            data = np.load(file)
            task = Task(
                population="p",
                run="r",
                cohort=number,
                task_id="t",
                model_hash="",
                graph_hash=manifest.graph_hash,
                layout_hash=manifest.layout_hash,
                base_weights_hash=weights_hash(weights),
                seed=task_seed(SEED, number, device),
                epochs=EPOCHS,
            )
            local = Examples({manifest.inputs[0]: data["x"]}, {manifest.targets[0].name: data["y"]})
            outcome = perform(task, trainer, Received(weights), local).outcome
            delta = np.concatenate([section.vector() for section in outcome.sections])
            total += outcome.num_examples * delta.astype(np.float64)
            examples += outcome.num_examples
        weights = (weights + total / examples).astype(np.float32)
    return weights


@pytest.mark.parametrize("name", [pytest.param("mlp", marks=pytest.mark.slow), "dropout", "batch_norm"])
def test_devices_and_server_compute_federated_averaging(fleet, write_data, request, name):
    model = request.getfixturevalue(f"{name}_file")
    devices = {write_identity(fleet.folder / f"d{i}", i): write_data(f"d{i}", 27 + 8 * i, i) for i in range(3)}
    fleet.start_server()
    run = fleet.create_run(model, "kitchen", rounds=ROUNDS, target=3, seed=SEED, epochs=EPOCHS)
    processes = [fleet.start_device(f"d{i}", "kitchen", file) for i, file in enumerate(devices.values())]
    summaries = [process.finish() for process in processes]
    status = fleet.status(run)
    assert status["state"] == "done"
    assert [entry["outcomes"]["folded"] for entry in status["history"]] == [3] * ROUNDS
    assert [summary["tasks"] for summary in summaries] == [{"accepted": ROUNDS}] * 3
    assert all(summary["peak_rss_mb"] < 80 for summary in summaries)
    np.testing.assert_allclose(fleet.weights(run), federated_averaging(model, devices), rtol=0, atol=1e-6)


def test_small_updates_travel_as_float16_and_clipped(fleet, write_data, mlp_file):
    fleet.start_server()
    run = fleet.create_run(mlp_file, "kitchen", rounds=1, target=1, codec="float16", clip_norm=0.05)
    summary = fleet.start_device("d", "kitchen", write_data("d")).finish()
    moved = fleet.weights(run) - ModelFile.read(mlp_file).initial_weights()
    assert np.linalg.norm(moved) == pytest.approx(0.05, rel=1e-3)
    assert summary["bytes_up"] < 2 * moved.size + 1800  # half of float32, and the protocol with what the device can do


def test_an_invitation_with_a_certificate_pin_is_all_that_a_device_needs(fleet, write_data, mlp_file, tmp_path):
    if shutil.which("openssl") is None:
        pytest.skip("openssl makes the certificate")
    certificate, key = tmp_path / "certificate.pem", tmp_path / "key.pem"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"),
            *("-keyout", key, "-out", certificate, "-days", "2", "-subj", "/CN=federation"),
        ],
        check=True,
        capture_output=True,
    )
    fleet.start_server("--certificate", certificate, "--private-key", key)
    run = fleet.create_run(mlp_file, "kitchen", rounds=2, target=1)
    invite = Process.start("server", "invite", "--state", fleet.state, "--population", "kitchen", "--format", "json")
    invitation = invite.finish()["invitation"]
    options = ["--data", write_data("d"), "--state", fleet.folder / "d", "--until-idle", "--format", "json"]
    assert Process.start("device", "run", "--invitation", invitation, *options).finish()["tasks_done"] == 2
    assert fleet.status(run)["state"] == "done"
    # The folder remembers the pin; another certificate is not believed.
    other = Process.start("device", "run", "--certificate-pin", "0" * 64, *options)
    assert other.child.wait(60) == 41
    assert "another certificate" in other.errors()


def test_a_device_whose_data_does_not_fit_says_so_and_sends_no_word_of_it(fleet, mlp_file, tmp_path):
    np.savez(tmp_path / "wrong.npz", x=np.ones((4, 7), np.float32), y=np.zeros(4, np.int32))
    fleet.start_server()
    run = fleet.create_run(mlp_file, "kitchen", rounds=1, target=1, max_failures=1)
    device = fleet.start_device("d", "kitchen", tmp_path / "wrong.npz")
    assert device.finish()["tasks"] == {"reported": 1}
    assert "expects shape (rows, 20), got (4, 7)" in device.errors()
    status = fleet.status(run)
    assert status["state"] == "failed"
    assert status["history"][0]["reasons"] == {"data_mismatch": 1}


def test_a_device_is_also_a_python_object(fleet, write_data, mlp_file):
    arrays = np.load(write_data("d"))
    fleet.start_server()
    run = fleet.create_run(mlp_file, "kitchen", rounds=2, target=1)
    url = f"http://127.0.0.1:{fleet.port}"
    device = edgefl.Device(url, "kitchen", (arrays["x"], arrays["y"]), fleet.folder / "d", token=fleet.token("kitchen"))
    assert device.step().result == "accepted"
    outcomes = fleet.status(run)["history"][0]["outcomes"]
    assert outcomes["accepted"] + outcomes["folded"] == 1  # it is folded a moment after the answer
    assert device.run(until_idle=True).tasks_done == 2
    assert fleet.status(run)["state"] == "done"
    device.close()


def test_an_update_that_explodes_is_refused_and_the_round_does_not_wait_for_it(fleet, write_data, mlp_file):
    fleet.start_server()
    run = fleet.create_run(mlp_file, "kitchen", rounds=1, target=1, max_failures=1, max_update_norm=1e-3)
    assert fleet.start_device("d", "kitchen", write_data("d")).finish()["tasks"] == {"refused: norm_exceeded": 1}
    assert fleet.status(run)["history"][0]["reasons"] == {"diverged": 1}


def test_a_wrong_token_ends_the_device_with_the_documented_code(fleet, write_data):
    fleet.start_server()
    fleet.tokens["kitchen"] = "wrong"
    device = fleet.start_device("d", "kitchen", write_data("d"))
    assert device.child.wait(60) == 41
    assert "does not accept this device" in device.errors()
    assert len(device.errors().splitlines()) == 1
