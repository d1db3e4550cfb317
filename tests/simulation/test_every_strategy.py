"""Every strategy that a server can be told can be simulated, with the parts that it has."""

from __future__ import annotations

import numpy as np
import pytest

import edgefl
from edgefl.hashing import weights_hash
from edgefl_server.aggregation import STRATEGIES

NEEDED = {
    "fedprox": {"mu": 0.1},
    "feddyn": {"mu": 0.1},
    "fedsgd": {"server_learning_rate": 0.1},
    "qfedavg": {"local_test": 0.3},
    "fedbuff": {"schedule": "buffered"},
    "fedasync": {"schedule": "buffered"},
}
"""What some of them cannot do without."""


def simulated(model, data, **settings):
    given = {"partition": "natural-id", "held_out": 0, "evaluate_every": 0, "rounds": 2, "cohort": 4, "workers": 1}
    return edgefl.simulate(model, data, **{**given, **settings})


@pytest.mark.parametrize("strategy", STRATEGIES.names())
def test_a_fleet_trains_by_it(owned, federated_file, strategy):
    history = simulated(federated_file, owned(5), strategy=strategy, **NEEDED.get(strategy, {}))
    assert [row["state"] for row in history.rounds] == ["done"] * 2
    assert np.isfinite(history.weights).all()
    assert all(row["diagnostics"]["update_norm"] > 0 for row in history.rounds)


def test_q_fedavg_goes_by_rows_that_devices_keep_for_tests_and_real_ones_of_a_server_do_the_same(owned, federated_file):
    settings = {"strategy": "qfedavg", "q": 2.0, "local_test": 0.3}
    histories = [simulated(federated_file, owned(5), **settings, engine=engine) for engine in ("local", "http")]
    assert len({weights_hash(each.weights) for each in histories}) == 1
    first, training = histories[0].rounds[0]["diagnostics"], histories[0].rounds[0]["training"]
    assert first["smallest_loss"] <= training["before/loss"] <= first["largest_loss"]
    assert training == histories[1].rounds[0]["training"]
    other = simulated(federated_file, owned(5), **{**settings, "q": 0.0})
    assert weights_hash(other.weights) != weights_hash(histories[0].weights)
