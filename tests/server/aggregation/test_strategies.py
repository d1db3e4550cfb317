from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from edgefl.errors import InvalidSettingError
from edgefl.wire.messages import MetricState
from edgefl_server.aggregation import Cohort, FoldError, RunSettings, Strategy, StrategyState, Update, Updates
from edgefl_server.aggregation.strategies.base import STRATEGIES
from edgefl_server.aggregation.strategies.fedavg import FedAvg
from edgefl_server.aggregation.strategies.feddyn import FedDyn
from edgefl_server.aggregation.strategies.fedprox import FedProx
from edgefl_server.aggregation.strategies.fedsgd import FedSGD
from edgefl_server.aggregation.strategies.qfedavg import QFedAvg
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
    metrics = MetricState("before/loss_sum", (3.0,)), MetricState("before/rows", (4.0,))
    updates = Updates.of([Update("t", 3, sections, metrics=metrics)])
    once, again = (strategy.apply(state, updates, Cohort(2))[0] for _ in range(2))
    assert once.weights.tobytes() == again.weights.tobytes()
    assert np.array_equal(state.weights, np.ones(WEIGHTS))
    assert all(np.array_equal(state.slots[each], slot) for each, slot in slots.items())
    assert all(np.array_equal(each, vector) for each in sections.values())


@pytest.mark.parametrize("hyperparameters", [{"mu": 0}, {"mu": -1}, {"mu": float("nan")}])
def test_a_hyperparameter_outside_its_range_is_refused(hyperparameters: dict) -> None:
    with pytest.raises(InvalidSettingError, match="mu expects a number"):
        FedProx(**hyperparameters)


def saying(task: str, delta: np.ndarray, loss: float | None, rows: float = 4.0) -> Update:
    values = {} if loss is None else {"before/loss_sum": loss * rows, "before/rows": rows}
    return replace(update(task, 7, delta), metrics=tuple(MetricState(name, (each,)) for name, each in values.items()))


@pytest.mark.parametrize("q", [0.0, 0.5, 1.0, 3.0])
def test_q_fedavg_is_the_papers_algorithm_2(q: float) -> None:
    random, lipschitz = np.random.default_rng(8), 20.0
    w = random.normal(size=WEIGHTS)
    losses = [0.3, 1.1, 0.7]
    deltas = [random.normal(size=WEIGHTS).astype(np.float32) * 0.1 for _ in losses]
    # Li et al. 2020, Algorithm 2, lines 6 and 7.
    steps = [-lipschitz * each.astype(float) for each in deltas]
    upper = [loss**q * step for loss, step in zip(losses, steps, strict=True)]
    lower = [q * loss ** (q - 1) * (s @ s) + lipschitz * loss**q for loss, s in zip(losses, steps, strict=True)]
    expected = w.astype(np.float32) - np.sum(upper, axis=0) / np.sum(lower)
    updates = [saying(f"t{i}", *each) for i, each in enumerate(zip(deltas, losses, strict=True))]
    state = several_rounds(QFedAvg(q=q, lipschitz=lipschitz), w.astype(np.float32), WEIGHTS, [updates])
    np.testing.assert_allclose(state.weights, expected, rtol=1e-6, atol=1e-7)


def test_q_fedavg_makes_the_losses_of_unlike_devices_more_alike() -> None:
    """Two kinds of devices with quadratic losses; the mean favours the many."""
    targets = [np.zeros(2)] * 5 + [np.full(2, 3.0)]

    def losses(q: float) -> list[float]:
        strategy = QFedAvg(q=q, lipschitz=10.0)
        state = strategy.init(np.ones(2, np.float32), 2)
        for _ in range(300):
            w = state.weights.astype(float)
            updates = [
                saying(f"t{i}", (0.1 * (each - w)).astype(np.float32), float(((w - each) ** 2).sum() / 2))
                for i, each in enumerate(targets)
            ]
            state = strategy.apply(state, Updates.of(updates), Cohort())[0]
        return [float(((state.weights - each) ** 2).sum() / 2) for each in targets]

    assert np.std(losses(2.0)) < 0.6 * np.std(losses(0.0))


def test_what_a_device_says_of_its_loss_is_not_believed_beyond_ten_times_the_median_and_silence_is_the_median() -> None:
    honest = [saying(f"t{i}", np.full(2, 0.1, np.float32), 1.0) for i in range(3)]
    liar, silent = saying("t8", np.full(2, -0.1, np.float32), 1e12), saying("t9", np.full(2, 0.1, np.float32), None)
    strategy = QFedAvg(q=1.0, lipschitz=1.0)
    state, figures = strategy.apply(
        strategy.init(np.zeros(2, np.float32), 2), Updates.of([*honest, liar, silent]), Cohort()
    )
    assert (figures["largest_loss"], figures["smallest_loss"]) == (10.0, 1.0)
    assert np.isfinite(state.weights).all()
    with pytest.raises(FoldError, match="no device says its loss"):
        strategy.apply(state, Updates.of([silent]), Cohort())


@pytest.mark.parametrize("unit", [1e-9, 1.0, 1e6, 1e20])
def test_q_fedavg_with_a_high_power_of_large_or_small_losses_is_that_of_usual_ones(unit: float) -> None:
    """A float that overflows would be tried again for ever."""
    updates = [saying(f"t{i}", np.full(2, 0.1 * (i + 1), np.float32), unit * (1 + i / 10)) for i in range(3)]
    strategy = QFedAvg(q=100.0, lipschitz=1.0 * unit)  # by which the formula does not depend on the unit
    state, _ = strategy.apply(strategy.init(np.zeros(2, np.float32), 2), Updates.of(updates), Cohort())
    upper = sum((1 + i / 10) ** 100 * 0.1 * (i + 1) for i in range(3))
    lower = sum(100 * (1 + i / 10) ** 99 * 2 * (0.1 * (i + 1)) ** 2 + (1 + i / 10) ** 100 for i in range(3))
    np.testing.assert_allclose(state.weights, upper / lower, rtol=1e-5)


def test_of_two_devices_one_that_makes_up_its_loss_does_not_lift_what_it_is_measured_by() -> None:
    honest, liar = saying("t0", np.full(2, 0.1, np.float32), 1.0), saying("t1", np.full(2, -0.1, np.float32), 1e59)
    strategy = QFedAvg(q=1.0, lipschitz=1.0)
    _, figures = strategy.apply(strategy.init(np.zeros(2, np.float32), 2), Updates.of([honest, liar]), Cohort())
    assert figures["largest_loss"] == 10.0


def test_q_fedavg_needs_a_run_in_which_devices_say_their_loss() -> None:
    with pytest.raises(InvalidSettingError, match="strategy qfedavg expects a local_test"):
        RunSettings.of(rounds=1, target=1, strategy="qfedavg")
    RunSettings.of(rounds=1, target=1, strategy="qfedavg", local_test=0.1)
