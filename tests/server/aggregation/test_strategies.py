from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from edgefl.errors import RunError
from edgefl_server.aggregation import FedAvg, StrategyState, Update
from edgefl_server.aggregation.strategies import FedDyn, FedProx, FedSGD, Scaffold

WEIGHTS, STATISTICS = 5, 3
floats = st.floats(-1e3, 1e3, width=32)


def vectors(size: int) -> st.SearchStrategy[np.ndarray]:
    return hnp.arrays(np.float32, size, elements=floats)


updates = st.lists(
    st.tuples(st.integers(1, 10_000), vectors(WEIGHTS), vectors(STATISTICS)), min_size=1, max_size=6
).map(lambda each: [Update(f"task-{index:03d}", *values) for index, values in enumerate(each)])


def run_round(strategy: FedAvg, weights: np.ndarray, contributions: list[Update]) -> np.ndarray:
    state = strategy.init(weights)
    accumulator = strategy.start(state)
    for each in sorted(contributions, key=lambda update: update.task_id):
        accumulator = strategy.fold(accumulator, each)
    return strategy.finish(state, accumulator)[0].weights


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
        Update(f"t{index}", count, np.zeros(WEIGHTS, np.float32), variance - received)
        for index, (count, variance) in enumerate(parts)
    ]

    result = run_round(FedAvg(), np.concatenate([weights, received]), contributions)[WEIGHTS:]

    assert np.all(result >= min(part[1].min() for part in parts) - 1e-5)


@settings(max_examples=20)
@given(vectors(WEIGHTS + STATISTICS))
def test_a_round_without_outcomes_leaves_the_weights_alone(weights: np.ndarray) -> None:
    strategy = FedAvg()
    state = StrategyState(weights)

    after, diagnostics = strategy.finish(state, strategy.start(state))

    assert after is state
    assert diagnostics["outcomes"] == 0


def test_folding_in_another_order_than_that_of_task_ids_is_refused() -> None:
    strategy = FedAvg()
    one = np.zeros(1, np.float32)
    empty = np.empty(0, np.float32)
    accumulator = strategy.fold(strategy.start(strategy.init(one)), Update("b", 1, one, empty))

    with pytest.raises(RunError, match="task-id order"):
        strategy.fold(accumulator, Update("a", 1, one, empty))
    with pytest.raises(RunError, match="task-id order"):
        strategy.fold(accumulator, Update("b", 1, one, empty))


def test_many_small_deltas_are_not_lost_beside_large_ones() -> None:
    # In float32 the running sum would stop growing at 2**24.
    empty, one = np.empty(0, np.float32), np.ones(1, np.float32)
    strategy = FedAvg()
    accumulator = strategy.fold(strategy.start(strategy.init(0 * one)), Update("0", 2**24, one, empty))
    for index in range(1, 101):
        accumulator = strategy.fold(accumulator, Update(f"1{index:03d}", 1, one, empty))

    assert accumulator.total[0] == 2**24 + 100


def several_rounds(strategy, weights: np.ndarray, rounds: list[list[Update]]) -> StrategyState:
    state = strategy.init(weights)
    for contributions in rounds:
        accumulator = strategy.start(state)
        for each in contributions:
            accumulator = strategy.fold(accumulator, each)
        state = strategy.finish(state, accumulator)[0]
    return state


def drawn_rounds(control: bool = False) -> tuple[np.ndarray, list[list[Update]]]:
    random = np.random.default_rng(5)
    draw = lambda size: random.normal(size=size).astype(np.float32)  # noqa: E731
    further = lambda: {"control": draw(WEIGHTS)} if control else {}  # noqa: E731
    rounds = [
        [Update(f"t{index}", 10 + 7 * index, draw(WEIGHTS), draw(STATISTICS), **further()) for index in devices]
        for devices in ([0, 1, 2], [1, 3], [0, 3])
    ]
    return draw(WEIGHTS + STATISTICS), rounds


def weighted_statistics(updates: list[Update]) -> np.ndarray:
    return np.average([each.statistics for each in updates], axis=0, weights=[each.num_examples for each in updates])


def test_scaffold_is_lines_16_and_17_of_the_papers_algorithm_1() -> None:
    weights, rounds = drawn_rounds(control=True)
    state = several_rounds(Scaffold(WEIGHTS, enrolled=6, server_learning_rate=0.5), weights, rounds)
    x, c, statistics = weights[:WEIGHTS].astype(float), np.zeros(WEIGHTS), weights[WEIGHTS:].astype(float)
    for updates in rounds:
        x = x + 0.5 * np.mean([each.delta for each in updates], axis=0)
        c = c + len(updates) / 6 * np.mean([each.control for each in updates], axis=0)
        statistics = statistics + weighted_statistics(updates)
    np.testing.assert_allclose(state.weights, np.concatenate([x, statistics]), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(state.slots["control"], c, rtol=1e-5, atol=1e-6)


def test_feddyn_is_the_servers_side_of_the_papers_algorithm_1() -> None:
    weights, rounds = drawn_rounds()
    alpha = 0.25
    state = several_rounds(FedDyn(WEIGHTS, enrolled=6, alpha=alpha), weights, rounds)
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
    nothing = np.empty(0, np.float32)
    gradients = [np.array([1.0, 2.0], np.float32), np.array([3.0, -2.0], np.float32)]
    updates = [Update(f"t{i}", 1 + 2 * i, nothing, nothing, gradient=each) for i, each in enumerate(gradients)]
    state = several_rounds(FedSGD(0.5), weights, [updates])
    np.testing.assert_allclose(state.weights, 1 - 0.5 * (gradients[0] + 3 * gradients[1]) / 4)


def test_fedprox_folds_as_fedavg_does() -> None:
    weights, rounds = drawn_rounds()
    ours, plain = (several_rounds(each, weights, rounds) for each in (FedProx(mu=0.1), FedAvg()))
    assert ours.weights.tobytes() == plain.weights.tobytes()


@pytest.mark.parametrize("strategy", [Scaffold(WEIGHTS, 4), FedDyn(WEIGHTS, 4, 0.1), FedSGD(0.1)])
def test_a_round_without_outcomes_leaves_every_state_alone(strategy) -> None:
    state = strategy.init(np.ones(WEIGHTS + STATISTICS, np.float32))
    assert strategy.finish(state, strategy.start(state))[0] is state
