"""What was simulated is what runs on devices: the same weights, to the last bit."""

from __future__ import annotations

import numpy as np
import pytest

import edgefl
from edgefl.hashing import weights_hash
from edgefl.targets import COMPILED_MODEL
from real_processes import Fleet, device_id, write_identity

ROUNDS, SEED, DEVICES, EPOCHS = 3, 11, 3, 2
TIMES = {"seconds", "clock", "simulated", "device_seconds", "bytes_down", "bytes_up"}


@pytest.fixture
def fleet(tmp_path):
    fleet = Fleet(tmp_path / "real")
    yield fleet
    fleet.close()


def timeless(row):
    """A round without what a run in real time does not say."""
    return {name: value for name, value in row.items() if name not in TIMES}


def simulated(model, data, **more):
    settings = {"rounds": ROUNDS, "cohort": DEVICES, "seed": SEED, "epochs": EPOCHS, "workers": 1, **more}
    return edgefl.simulate(model, data, partition="natural-id", held_out=0, evaluate_every=0, **settings)


def run_for_real(fleet, model, data, **settings):
    """The weights that a server and device processes end with, each device with its own rows of the data."""
    fleet.start_server()
    run = fleet.create_run(model, "kitchen", rounds=ROUNDS, target=DEVICES, seed=SEED, epochs=EPOCHS, **settings)
    processes = []
    for number in range(DEVICES):
        device = write_identity(fleet.folder / f"d{number}", number)
        own = data["id"] == device
        np.savez(fleet.folder / f"d{number}.npz", x=data["x"][own], y=data["y"][own])
        processes.append(fleet.start_device(f"d{number}", "kitchen", fleet.folder / f"d{number}.npz"))
    for process in processes:
        process.finish()
    assert fleet.status(run)["state"] == "done"
    return fleet.weights(run)


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        pytest.param("federated", {"strategy": "fedavg", "codec": "float16", "clip_norm": 0.3}, marks=pytest.mark.slow),
        ("federated", {"strategy": "scaffold", "server_learning_rate": 0.7}),
        ("dropout", {"strategy": "fedavg", "codec": "rand-0.25+drive", "clip_norm": 0.5}),
        pytest.param(
            "federated", {"strategy": "fedavg", "codec": "stc-0.04", "down_codec": "drive"}, marks=pytest.mark.slow
        ),
    ],
    ids=["fedavg", "scaffold", "dropout", "error feedback"],
)
def test_every_engine_and_real_devices_of_a_real_server_end_with_the_same_bits(
    request, fleet, owned, ray_cluster, name, settings
):
    model, data = request.getfixturevalue(f"{name}_file"), owned(DEVICES)
    engines = {
        "in process": {"workers": 1},
        "two workers": {"workers": 2},
        "compiled model": {"workers": 1, "runtime": COMPILED_MODEL},
        "ray": {"engine": "ray", "ray_address": ray_cluster.address},
        "http": {"engine": "http"},
    }
    histories = {engine: simulated(model, data, **settings, **more) for engine, more in engines.items()}
    rows = {engine: [timeless(row) for row in history.rounds] for engine, history in histories.items()}
    weights = {engine: weights_hash(history.weights) for engine, history in histories.items()}
    weights["real devices"] = weights_hash(run_for_real(fleet, model, data, **settings))
    assert weights == dict.fromkeys(weights, weights["in process"])
    assert rows == dict.fromkeys(rows, rows["in process"])
    assert [row["outcomes"] for row in rows["in process"]] == [{"done": DEVICES}] * ROUNDS


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("federated", {"strategy": "feddyn", "mu": 0.3}),
        ("federated", {"strategy": "fedsgd", "epochs": 1}),
        ("personal", {"strategy": "scaffold"}),
        ("batch_norm_first", {"strategy": "fedavg", "deadline_seconds": 30, "cohort": 4}),
    ],
    ids=["feddyn", "fedsgd", "local parameters", "over-selection and statistics"],
)
def test_any_number_of_workers_ends_with_the_same_bits_and_rows(request, owned, name, settings):
    model, data = request.getfixturevalue(f"{name}_file"), owned(7)

    def rows_and_weights(workers):
        more = {"cohort": 3, "evaluate_every": 1, "held_out": 0.2, "local_test": 0.2, **settings}
        found = edgefl.simulate(model, data, partition="natural-id", rounds=4, seed=SEED, workers=workers, **more)
        return [{**row, "seconds": 0} for row in found.rounds], weights_hash(found.weights), found.initial

    alone = rows_and_weights(1)
    assert len(alone[0]) == 4
    assert rows_and_weights(2) == alone
    assert rows_and_weights(3) == alone


def test_another_seed_or_device_id_gives_other_weights(federated_file, owned):
    data = owned(DEVICES)
    one = simulated(federated_file, data)
    assert weights_hash(simulated(federated_file, data).weights) == weights_hash(one.weights)
    assert weights_hash(simulated(federated_file, data, seed=12).weights) != weights_hash(one.weights)
    renamed = {**data, "id": np.char.replace(data["id"], device_id(0), device_id(5))}
    assert weights_hash(simulated(federated_file, renamed).weights) != weights_hash(one.weights)
