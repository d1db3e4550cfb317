from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from edgefl.errors import InvalidSettingError
from edgefl_server.aggregation import Cohort, Strategy, StrategyState, Update, Updates
from edgefl_server.aggregation.strategies.base import STRATEGIES
from edgefl_server.aggregation.strategies.fedavg import FedAvg
from edgefl_server.aggregation.strategies.feddyn import FedDyn
from edgefl_server.aggregation.strategies.fedprox import FedProx
from edgefl_server.aggregation.strategies.fedsgd import FedSGD
from edgefl_server.aggregation.strategies.scaffold import Scaffold

WEIGHTS, STATISTICS = 5, 3
floats = st.floats(-1e3, 1e3, width=32)


def update(task_id: str, examples: int, delta: np.ndarray, statistics: np.ndarray | None = None, **further) -> Update:
    sections = {"delta": delta, "statistics": statistics, **further}
    return Update(task_id, examples, {name: vector for name, vector in sections.items() if vector is not None})


def vectors(size: int) -> st.SearchStrategy[np.ndarray]:
    return hnp.arrays(np.float32, size, elements=floats)


updates = st.lists(
    st.tuples(st.integers(1, 10_000), vectors(WEIGHTS), vectors(STATISTICS)), min_size=1, max_size=6
).map(lambda each: [update(f"task-{index:03d}", *values) for index, values in enumerate(each)])


def run_round(strategy: Strategy, weights: np.ndarray, contributions: list[Update]) -> np.ndarray:
    size = weights.size - contributions[0].statistics.size
    ordered = Updates.of(sorted(contributions, key=lambda each: each.task_id))
    return strategy.apply(strategy.init(weights, size), ordered, Cohort())[0].weights


@given(vectors(WEIGHTS + STATISTICS), updates)
def test_the_result_is_the_weighted_mean_of_the_papers_algorithm_1(
    weights: np.ndarray, contributions: list[Update]
) -> None:
    counts = np.array([each.num_examples for each in contributions], np.float64)
    trained = np.array(
        [weights.astype(np.float64) + np.concatenate([each.delta, each.statistics]) for each in contributions]
    )
    oracle = (counts[:, None] * trained).sum(axis=0) / counts.sum()

    np.testing.assert_allclose(run_round(FedAvg(), weights, contributions), oracle, rtol=1e-6, atol=1e-6)


@given(vectors(WEIGHTS + STATISTICS), updates, st.randoms())
def test_the_order_of_arrival_does_not_change_one_bit(weights: np.ndarray, contributions: list[Update], random) -> None:
    arrived = list(contributions)
    random.shuffle(arrived)

    assert run_round(FedAvg(), weights, arrived).tobytes() == run_round(FedAvg(), weights, contributions).tobytes()


@given(vectors(WEIGHTS + STATISTICS), updates)
def test_a_single_device_ends_with_its_own_weights(weights: np.ndarray, contributions: list[Update]) -> None:
    alone = contributions[0]
    own = (weights.astype(np.float64) + np.concatenate([alone.delta, alone.statistics])).astype(np.float32)

    assert np.array_equal(run_round(FedAvg(), weights, [alone]), own)


variances = hnp.arrays(np.float32, STATISTICS, elements=st.floats(0, 9, width=32))


@given(vectors(WEIGHTS), st.lists(st.tuples(st.integers(1, 100), variances), min_size=1, max_size=5))
def test_averaged_variances_stay_within_those_of_the_devices(weights: np.ndarray, parts) -> None:
    received = np.ones(STATISTICS, np.float32)
    contributions = [
        update(f"t{index}", count, np.zeros(WEIGHTS, np.float32), variance - received)
        for index, (count, variance) in enumerate(parts)
    ]

    result = run_round(FedAvg(), np.concatenate([weights, received]), contributions)[WEIGHTS:]

    assert np.all(result >= min(part[1].min() for part in parts) - 1e-5)


def test_many_small_deltas_are_not_lost_beside_large_ones() -> None:
    # In float32 the running sum would stop growing at 2**24.
    one = np.ones(1, np.float32)
    many = [update("0", 2**24, one), *(update(f"1{index:03d}", 1, 0 * one + 2**24) for index in range(100))]
    expected = (2**24 + 100 * 2**24) / (2**24 + 100)
    assert run_round(FedAvg(), 0 * one, many)[0] == np.float32(expected)


def several_rounds(strategy: Strategy, weights: np.ndarray, size: int, rounds: list[list[Update]]) -> StrategyState:
    state = strategy.init(weights, size)
    for contributions in rounds:
        state = strategy.apply(state, Updates.of(contributions), Cohort(6))[0]
    return state


def drawn_rounds(control: bool = False) -> tuple[np.ndarray, list[list[Update]]]:
    random = np.random.default_rng(5)
    draw = lambda size: random.normal(size=size).astype(np.float32)  # noqa: E731
    further = lambda: {"control": draw(WEIGHTS)} if control else {}  # noqa: E731
    rounds = [
        [update(f"t{index}", 10 + 7 * index, draw(WEIGHTS), draw(STATISTICS), **further()) for index in devices]
        for devices in ([0, 1, 2], [1, 3], [0, 3])
    ]
    return draw(WEIGHTS + STATISTICS), rounds


def weighted_statistics(updates: list[Update]) -> np.ndarray:
    return np.average([each.statistics for each in updates], axis=0, weights=[each.num_examples for each in updates])


def test_scaffold_is_lines_16_and_17_of_the_papers_algorithm_1() -> None:
    weights, rounds = drawn_rounds(control=True)
    state = several_rounds(Scaffold(server_learning_rate=0.5), weights, WEIGHTS, rounds)
    x, c, statistics = weights[:WEIGHTS].astype(float), np.zeros(WEIGHTS), weights[WEIGHTS:].astype(float)
    for updates in rounds:
        x = x + 0.5 * np.mean([each.delta for each in updates], axis=0)
        c = c + len(updates) / 6 * np.mean([each.section("control") for each in updates], axis=0)
        statistics = statistics + weighted_statistics(updates)
    np.testing.assert_allclose(state.weights, np.concatenate([x, statistics]), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(state.slots["control"], c, rtol=1e-5, atol=1e-6)


def test_feddyn_is_the_servers_side_of_the_papers_algorithm_1() -> None:
    weights, rounds = drawn_rounds()
    alpha = 0.25
    state = several_rounds(FedDyn(mu=alpha), weights, WEIGHTS, rounds)
    theta, h, statistics = weights[:WEIGHTS].astype(float), np.zeros(WEIGHTS), weights[WEIGHTS:].astype(float)
    for updates in rounds:
        trained = [theta + each.delta for each in updates]
        h = h - alpha / 6 * np.sum([each - theta for each in trained], axis=0)
        theta = np.mean(trained, axis=0) - h / alpha
        statistics = statistics + weighted_statistics(updates)
    np.testing.assert_allclose(state.weights, np.concatenate([theta, statistics]), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(state.slots["h"], h, rtol=1e-5, atol=1e-6)


def test_fedsgd_steps_along_the_weighted_mean_of_the_gradients() -> None:
    weights = np.ones(2, np.float32)
    gradients = [np.array([1.0, 2.0], np.float32), np.array([3.0, -2.0], np.float32)]
    updates = [Update(f"t{i}", 1 + 2 * i, {"gradient": each}) for i, each in enumerate(gradients)]
    state = several_rounds(FedSGD(server_learning_rate=0.5), weights, 2, [updates])
    np.testing.assert_allclose(state.weights, 1 - 0.5 * (gradients[0] + 3 * gradients[1]) / 4)


def test_fedprox_folds_as_fedavg_does() -> None:
    weights, rounds = drawn_rounds()
    ours, plain = (several_rounds(each, weights, WEIGHTS, rounds) for each in (FedProx(mu=0.1), FedAvg()))
    assert ours.weights.tobytes() == plain.weights.tobytes()


@pytest.mark.parametrize("name", STRATEGIES.names())
def test_a_strategy_leaves_what_it_is_given_as_it_was(name: str) -> None:
    strategy = STRATEGIES.get(name)(
        **({"mu": 0.1} if name in ("fedprox", "feddyn") else {"server_learning_rate": 0.1} if name == "fedsgd" else {})
    )
    vector = np.arange(WEIGHTS, dtype=np.float32)
    sections = {each: vector.copy() for each in ("delta", "control", "gradient")}
    state = strategy.init(np.ones(WEIGHTS, np.float32), WEIGHTS)
    slots = {each: slot.copy() for each, slot in state.slots.items()}
    once, again = (strategy.apply(state, Updates.of([Update("t", 3, sections)]), Cohort(2))[0] for _ in range(2))
    assert once.weights.tobytes() == again.weights.tobytes()
    assert np.array_equal(state.weights, np.ones(WEIGHTS))
    assert all(np.array_equal(state.slots[each], slot) for each, slot in slots.items())
    assert all(np.array_equal(each, vector) for each in sections.values())


@pytest.mark.parametrize("hyperparameters", [{"mu": 0}, {"mu": -1}, {"mu": float("nan")}])
def test_a_hyperparameter_outside_its_range_is_refused(hyperparameters: dict) -> None:
    with pytest.raises(InvalidSettingError, match="mu expects a number"):
        FedProx(**hyperparameters)
