from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from edgefl.errors import RunError
from edgefl_server.aggregation import FedAvg, StrategyState, Update

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


@given(vectors(WEIGHTS + STATISTICS), updates, st.integers(1, 20_000))
def test_the_result_is_the_weighted_mean_of_the_papers_algorithm_1(
    weights: np.ndarray, contributions: list[Update], cap: int
) -> None:
    counts = np.array([min(each.num_examples, cap) for each in contributions], np.float64)
    trained = np.array(
        [weights.astype(np.float64) + np.concatenate([each.delta, each.statistics]) for each in contributions]
    )
    oracle = (counts[:, None] * trained).sum(axis=0) / counts.sum()

    np.testing.assert_allclose(run_round(FedAvg(cap), weights, contributions), oracle, rtol=1e-6, atol=1e-6)


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


def test_num_examples_beyond_the_cap_count_as_the_cap() -> None:
    weights = np.zeros(1, np.float32)
    empty = np.empty(0, np.float32)
    liar = Update("a", 2**53, np.array([1.0], np.float32), empty)
    honest = Update("b", 10, np.array([0.0], np.float32), empty)

    assert run_round(FedAvg(10), weights, [liar, honest])[0] == 0.5


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
    strategy = FedAvg(2**30)
    accumulator = strategy.fold(strategy.start(strategy.init(0 * one)), Update("0", 2**24, one, empty))
    for index in range(1, 101):
        accumulator = strategy.fold(accumulator, Update(f"1{index:03d}", 1, one, empty))

    assert accumulator.total[0] == 2**24 + 100
