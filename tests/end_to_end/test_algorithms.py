"""Whole rounds of federated algorithms over HTTP, with real processes, against the papers' formulas in float64."""

from __future__ import annotations

import numpy as np
import pytest

from edgefl.model_file import ModelFile
from edgefl_server.aggregation import task_seed
from federated_numpy import BODY, SIZE, LocalData, descend, feddyn, fedprox, gradient, scaffold
from real_processes import Process, write_identity

ROUNDS, SEED, EPOCHS, DEVICES = 3, 11, 2, 3


@pytest.fixture
def devices(fleet, write_data):
    """{device id: data file}, in the order of ids, in which the server folds."""
    found = {write_identity(fleet.folder / f"d{i}", i): write_data(f"d{i}", 19 + 8 * i, i) for i in range(DEVICES)}
    return dict(sorted(found.items()))


def data_of(devices, device, number, epochs=EPOCHS):
    with np.load(devices[device]) as arrays:
        return LocalData(arrays["x"], arrays["y"], task_seed(SEED, number, device), epochs)


def run_for_real(fleet, model, devices, **settings):
    """The whole run; the weights after it."""
    fleet.start_server()
    # Whoever enrols first begins at once; a population is complete when all have.
    run = fleet.create_run(model, "kitchen", rounds=ROUNDS, target=DEVICES, seed=SEED, **{"epochs": EPOCHS, **settings})
    processes = [fleet.start_device(f"d{i}", "kitchen", fleet.folder / f"d{i}.npz") for i in range(DEVICES)]
    summaries = [process.finish() for process in processes]
    assert [summary["tasks"] for summary in summaries] == [{"accepted": ROUNDS}] * DEVICES
    assert fleet.status(run)["state"] == "done"
    return fleet.weights(run), summaries


def initial_weights(model):
    return ModelFile.read(model).initial_weights().astype(np.float64)


def assert_close(actual, expected):
    np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-5)


def test_scaffold(fleet, devices, federated_file):
    weights, summaries = run_for_real(
        fleet, federated_file, devices, strategy="scaffold", server_learning_rate=0.7, epochs=EPOCHS
    )
    x, c = initial_weights(federated_file), np.zeros(SIZE)
    own = {device: np.zeros(SIZE) for device in devices}
    for number in range(1, ROUNDS + 1):
        deltas, changes = [], []
        for device in devices:
            y, after = scaffold(x, c, own[device], data_of(devices, device, number))
            deltas.append(y - x)
            changes.append(after - own[device])
            own[device] = after
        x = x + 0.7 * np.mean(deltas, axis=0)
        c = c + np.mean(changes, axis=0)  # |S| = N
    assert_close(weights, x)
    assert all(not any((fleet.folder / f"d{i}" / "runs").iterdir()) for i in range(DEVICES)), "kept after the run"
    assert all(summary["peak_rss_mb"] < 80 for summary in summaries)


@pytest.mark.slow
def test_feddyn(fleet, devices, federated_file):
    alpha = 0.25
    weights, _ = run_for_real(fleet, federated_file, devices, strategy="feddyn", mu=alpha)
    theta, h = initial_weights(federated_file), np.zeros(SIZE)
    own = {device: np.zeros(SIZE) for device in devices}
    for number in range(1, ROUNDS + 1):
        trained = []
        for device in devices:
            w, own[device] = feddyn(theta, own[device], data_of(devices, device, number), alpha)
            trained.append(w)
        h = h - alpha * np.mean([w - theta for w in trained], axis=0)
        theta = np.mean(trained, axis=0) - h / alpha
    assert_close(weights, theta)


def test_fedprox(fleet, devices, federated_file):
    weights, _ = run_for_real(fleet, federated_file, devices, strategy="fedprox", mu=0.5)
    w = initial_weights(federated_file)
    for number in range(1, ROUNDS + 1):
        local = [data_of(devices, device, number) for device in devices]
        w = np.average([fedprox(w, data, 0.5) for data in local], axis=0, weights=[len(data.x) for data in local])
    assert_close(weights, w)


@pytest.mark.slow
def test_fedsgd(fleet, devices, federated_file):
    weights, _ = run_for_real(fleet, federated_file, devices, strategy="fedsgd", server_learning_rate=0.5, epochs=1)
    w = initial_weights(federated_file)
    for _ in range(ROUNDS):
        local = [data_of(devices, device, 1) for device in devices]
        x, y = (np.concatenate([getattr(data, name) for data in local]) for name in "xy")
        w = w - 0.5 * gradient(w, x.astype(np.float64), y)
    assert_close(weights, w)


def test_local_parameters_live_on_each_device_for_the_time_of_the_run(fleet, devices, personal_file):
    weights, _ = run_for_real(fleet, personal_file, devices)
    file = ModelFile.read(personal_file)
    assert weights.size == BODY
    first = {parameter.name: file.initial_value(parameter).ravel() for parameter in file.manifest.parameters}
    shared = initial_weights(personal_file)
    heads = {device: np.concatenate([first["head/kernel"], first["head/bias"]]) for device in devices}
    for number in range(1, ROUNDS + 1):
        bodies, counts = [], []
        for device in devices:
            data = data_of(devices, device, number)
            trained, _ = descend(np.concatenate([shared, heads[device]]).astype(np.float64), data, lambda _, g: g)
            bodies.append(trained[:BODY])
            heads[device] = trained[BODY:]
            counts.append(len(data.x))
        shared = np.average(bodies, axis=0, weights=counts)
    assert_close(weights, shared)


def test_a_strategy_that_the_file_was_not_made_for_is_refused_with_the_way_out(fleet, plain_sgd_file):
    fleet.start_server()
    fleet.token("kitchen")
    options = ["--state", fleet.state, "--population", "kitchen", "--rounds", 1, "--target", 1]
    refused = Process.start("run", "create", plain_sgd_file, *options, "--strategy", "scaffold")
    assert refused.child.wait(60) == 4
    assert "--algorithm scaffold" in refused.errors()
    unknown = Process.start("run", "create", plain_sgd_file, *options, "--strategy", "scafold")
    assert unknown.child.wait(60) == 4
    assert "Did you mean scaffold?" in unknown.errors()
