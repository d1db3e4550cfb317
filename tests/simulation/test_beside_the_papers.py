"""A whole simulation beside FedAvg and SCAFFOLD as their papers write them, in float64: all but whom chance picks."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

import edgefl
from edgefl.model_file import ModelFile
from edgefl_server.aggregation.seeds import task_seed
from edgefl_simulation import partition_data
from edgefl_simulation.draws import Line
from edgefl_simulation.fleet import device_ids
from federated_numpy import SIZE, LocalData, fedprox, probabilities, scaffold

DEVICES, COHORT, ROUNDS, EPOCHS, SEED = 6, 3, 5, 2, 3


@pytest.mark.parametrize("strategy", ["fedavg", "scaffold"])
def test_weights_and_figures_of_all_rounds_are_those_of_the_paper(federated_file, owned_once, strategy):
    x, y = owned_once
    division = {"partition": "dirichlet:1,2", "devices": DEVICES, "seed": SEED}
    divided = partition_data((x, y), **division).divided
    names, held = device_ids(divided.names), divided.held_out
    w = ModelFile.read(federated_file).initial_weights().astype(np.float64)
    first, c, own = w, np.zeros(SIZE), [np.zeros(SIZE)] * DEVICES
    losses, accuracies = [], []
    for number in range(1, ROUNDS + 1):
        deltas, changes, examples = [], [], []
        for device in itertools.islice(Line(DEVICES, SEED, number), COHORT):
            rows, seed = divided.parts[device], task_seed(SEED, number, names[device])
            data = LocalData(x[rows], y[rows], seed, EPOCHS)
            if strategy == "scaffold":
                trained, after = scaffold(w, c, own[device], data)
                changes.append(after - own[device])
                own[device] = after
            else:
                trained = fedprox(w, data, mu=0.0)
            deltas.append(trained - w)
            examples.append(len(rows))
        if strategy == "scaffold":
            w, c = w + np.mean(deltas, 0), c + COHORT / DEVICES * np.mean(changes, 0)
        else:
            w = w + np.average(deltas, 0, weights=examples)
        chances = probabilities(w, x[held].astype(np.float64))
        losses.append(-np.log(chances[np.arange(len(held)), y[held]]).mean())
        accuracies.append((chances.argmax(1) == y[held]).mean())

    settings = {"rounds": ROUNDS, "cohort": COHORT, "epochs": EPOCHS, "workers": 1, "evaluate_devices": 0}
    found = edgefl.simulate(federated_file, (x, y), strategy=strategy, **division, **settings)
    assert np.abs(w - first).max() > 0.1
    np.testing.assert_allclose(found.weights, w, atol=2e-6)
    np.testing.assert_allclose(found.metric("loss"), losses, rtol=2e-6)
    np.testing.assert_allclose(found.metric("accuracy"), accuracies, rtol=1e-6)
