"""Each server optimizer equals a transcription of its paper's formulas in float64."""

from __future__ import annotations

import math
import re

import numpy as np
import pytest

from edgefl.errors import InvalidSettingError
from edgefl_server.aggregation import STRATEGIES, Cohort, RunSettings, Update, Updates, run_settings, strategy_for
from edgefl_server.aggregation.averaging import Average
from edgefl_server.aggregation.hyperparameters import build, check_usual, settings_of, values_of
from edgefl_server.aggregation.server_optimizers import SERVER_OPTIMIZERS, Adagrad, Adam, Momentum, Sgd, Yogi
from edgefl_server.aggregation.strategies.fedavg import FedAvg

SIZE = 1000


def fedavgm(deltas, eta=0.7, beta=0.8):
    """Hsu et al. 2019, section 4.3."""
    v = w = np.zeros(SIZE)
    for delta in deltas:
        v = beta * v + delta
        w = w + eta * v
    return w


def algorithm_2(second, eta, beta_1, tau):
    """Reddi et al. 2021, Algorithm 2, lines 10 to 15."""

    def run(deltas):
        w, m, v = np.zeros(SIZE), np.zeros(SIZE), np.full(SIZE, tau**2)
        for delta in deltas:
            m = beta_1 * m + (1 - beta_1) * delta
            v = second(v, delta**2)
            w = w + eta * m / (np.sqrt(v) + tau)
        return w

    return run


CASES = {
    "sgd": (Sgd(0.3), lambda deltas: 0.3 * np.sum(deltas, axis=0)),
    "momentum": (Momentum(0.7, 0.8), fedavgm),
    "adagrad": (Adagrad(0.2, 0.0, 0.01), algorithm_2(lambda v, d: v + d, 0.2, 0.0, 0.01)),
    "adam": (Adam(0.2, 0.8, 0.01, 0.95), algorithm_2(lambda v, d: 0.95 * v + 0.05 * d, 0.2, 0.8, 0.01)),
    "yogi": (
        Yogi(0.2, 0.8, 0.01, 0.95),
        algorithm_2(lambda v, d: v - 0.05 * d * np.sign(v - d), 0.2, 0.8, 0.01),
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_it_is_what_its_paper_says(name: str) -> None:
    optimizer, oracle = CASES[name]
    random = np.random.default_rng(3)
    deltas = [random.normal(size=SIZE) * 10 ** random.uniform(-3, 0, SIZE) for _ in range(6)]
    slots, moved = optimizer.init(SIZE), np.zeros(SIZE)
    for delta in deltas:
        before = {name: slot.copy() for name, slot in slots.items()}
        change, after = optimizer.step(Average(3.0 * delta, 3.0), slots)
        assert all(np.array_equal(slots[name], slot) for name, slot in before.items())
        assert {name: (slot.dtype, slot.shape) for name, slot in after.items()} == {
            name: (np.dtype(np.float32), (SIZE,)) for name in before
        }
        moved, slots = moved + change, after
    np.testing.assert_allclose(moved, oracle(deltas), rtol=2e-5, atol=1e-8)


def test_the_defaults_are_the_papers() -> None:
    assert [SERVER_OPTIMIZERS.get(name)() for name in ("momentum", "adagrad", "adam", "yogi")] == [
        Momentum(1.0, 0.9),
        Adagrad(0.1, 0.0, 1e-3),
        Adam(0.1, 0.9, 1e-3, 0.99),
        Yogi(0.01, 0.9, 1e-3, 0.99),
    ]


def test_momentum_is_faster_in_a_long_valley_and_adam_where_elements_have_unlike_sizes() -> None:
    """What they are for: a quadratic of which one direction is a thousand times steeper than the other."""
    steep = np.array([1.0, 1e-3])

    def left(optimizer, steps=200):
        w, slots = np.ones(2), optimizer.init(2)
        for _ in range(steps):
            change, slots = optimizer.step(Average(-steep * w, 1.0), slots)
            w = w + change
        return np.abs(w).max()

    assert left(Momentum(0.1, 0.9)) < left(Sgd(0.1))
    for adaptive in (Adagrad(0.1), Adam(0.02), Yogi(0.02)):
        assert left(adaptive) < 0.1 < left(Sgd(0.1))


def fold_once(strategy, rounds=3):
    random = np.random.default_rng(4)
    state = strategy.init(np.zeros(SIZE, np.float32), SIZE)
    for _ in range(rounds):
        updates = [
            Update(f"t{index}", 10 + index, {"delta": random.normal(size=SIZE).astype(np.float32)})
            for index in range(4)
        ]
        state = strategy.apply(state, Updates.of(updates), Cohort(4))[0]
    return state


@pytest.mark.parametrize(
    ("strategy", "optimizer"),
    [("fedavgm", "momentum"), ("fedadagrad", "adagrad"), ("fedadam", "adam"), ("fedyogi", "yogi")],
)
def test_a_strategy_with_a_name_of_its_own_is_fedavg_with_that_server_optimizer(strategy: str, optimizer: str) -> None:
    named = fold_once(build(STRATEGIES.get(strategy), {"server_learning_rate": 0.05}))
    chosen = fold_once(build(FedAvg, {"server_optimizer": optimizer, "server_learning_rate": 0.05}))
    assert named.weights.tobytes() == chosen.weights.tobytes()
    assert {name: slot.tobytes() for name, slot in named.slots.items()} == {
        name: slot.tobytes() for name, slot in chosen.slots.items()
    }


def test_the_settings_of_a_part_lie_beside_those_of_its_strategy() -> None:
    values = {"strategy": "fedprox", "mu": 0.1, "server_optimizer": "adam", "beta_2": 0.9, "rule": "krum"}
    settings = RunSettings.of(rounds=1, target=9, byzantine=3, **values)
    strategy = strategy_for(settings)
    assert (strategy.mu, strategy.server_optimizer, strategy.rule.byzantine) == (0.1, Adam(beta_2=0.9), 3)
    assert settings.hyperparameters == values_of(strategy)
    assert RunSettings.from_json(settings.to_json()) == settings
    assert {"beta_1", "radius", "byzantine", "weighting", "pre_aggregation"} <= {each.name for each in run_settings()}


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({"server_optimizer": "adamm"}, "server_optimizer expects one of .*Did you mean adam"),
        ({"rule": "krumm"}, "rule expects one of .*Did you mean krum"),
        ({"pre_aggregation": "nnm,nnm"}, "each name once"),
        ({"pre_aggregation": "nmn"}, "pre_aggregation expects names among .*Did you mean nnm"),
        ({"server_optimizer": "adam", "momentum": 0.5}, "momentum has no meaning with server_optimizer adam"),
        ({"beta_1": 0.5}, "beta_1 has no meaning with server_optimizer"),
        ({"strategy": "fedadam", "server_optimizer": "sgd"}, "server_optimizer has no meaning with strategy fedadam"),
        ({"strategy": "fedadam", "tau": 0.0}, "tau expects a number above 0"),
        ({"strategy": "fedadam", "beta_1": 1.5}, "beta_1 expects a number from 0 to 1"),
        ({"weighting": "size"}, "weighting expects one of examples, uniform"),
        ({"weighting": "examples", "rule": "median"}, "weighting examples does not go with a robust rule"),
        ({"strategy": "scaffold", "rule": "median"}, "rule does not go with strategy scaffold: the devices' corr"),
        ({"strategy": "feddyn", "mu": 1, "server_optimizer": "adam"}, "server_optimizer does not go with strategy fed"),
        ({"rule": "krum", "byzantine": 4}, "needs 11 updates a fold"),
        ({"rule": "bulyan", "byzantine": 2}, "needs 11 updates a fold"),
        ({"strategy": "robust", "byzantine": 5}, "needs 11 updates a fold"),
        ({"rule": "krum", "byzantine": 1, "pre_aggregation": "bucketing", "bucket": 3}, "needs 13 updates a fold"),
        ({"rule": "multi-krum", "byzantine": 2, "keep": 9}, "needs 11 updates a fold"),
        ({"rule": "trimmed-mean", "byzantine": 5, "minimum": 9}, "needs 11 updates a fold"),
    ],
)
def test_what_contradicts_is_refused_when_a_run_is_created(settings: dict, why: str) -> None:
    with pytest.raises(InvalidSettingError) as refused:
        RunSettings.of(rounds=1, target=10, **settings)
    assert re.search(why, str(refused.value)), str(refused.value)


def test_what_nobody_can_want_of_a_part_is_refused_of_new_runs() -> None:
    with pytest.raises(InvalidSettingError, match="server_learning_rate expects"):
        check_usual(build(FedAvg, {"server_learning_rate": 1e7}))


def test_every_setting_of_a_part_has_one_kind_and_a_help() -> None:
    for name in STRATEGIES.names():
        for each in settings_of(STRATEGIES.get(name)):
            assert each.help.strip("."), (name, each.name)
    assert math.isclose(Adam().beta_2, 0.99)
