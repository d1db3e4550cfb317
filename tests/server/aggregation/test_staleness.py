"""What stale updates count for, and FedBuff and FedAsync against their formulas in float64."""

from __future__ import annotations

import numpy as np
import pytest

from edgefl_server.aggregation import (
    Believed,
    Cohort,
    Contribution,
    ModelLimits,
    RunSettings,
    Staleness,
    Update,
    fold,
    in_order,
    strategy_for,
)

SIZE = 50


def rule(**settings):
    return Staleness.in_run(RunSettings(rounds=1, target=1, schedule="buffered", **settings), "buffered")


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, [1, 2**-0.5, 3**-0.5, 10**-0.5]),
        ({"staleness_exponent": 2.0}, [1, 1 / 4, 1 / 9, 1 / 100]),
        ({"staleness": "constant"}, [1, 1, 1, 1]),
        ({"staleness": "threshold", "staleness_threshold": 1, "staleness_floor": 0.25}, [1, 1, 0.25, 0.25]),
        ({"staleness": "hinge", "staleness_threshold": 1}, [1, 1, 1 / 11, 1 / 81]),
    ],
)
def test_each_weight_is_that_of_its_paper(settings, expected):
    assert [rule(**settings).weight(staleness) for staleness in (0, 1, 2, 9)] == pytest.approx(expected, rel=1e-15)


def test_a_relative_fold_of_equally_stale_updates_counts_as_a_fresh_one_and_a_floor_of_0_divides_nothing():
    assert rule(staleness_scale="relative").factors([7, 7, 7]) == [1, 1, 1]
    assert rule(staleness_scale="relative").factors([0, 2]) == pytest.approx([2**0.5, (2 / 3) ** 0.5])
    assert rule(staleness="threshold", staleness_scale="relative").factors([9, 9]) == [0, 0]


def test_without_a_buffer_nothing_is_discounted():
    assert Staleness.in_run(RunSettings(rounds=1, target=1), "synchronous").factors([0, 3]) == [1, 1]


class Problem:
    """Random updates that began from random versions of random weights."""

    def __init__(self, seed: int, updates: int, oldest: int = 6) -> None:
        random = np.random.default_rng(seed)
        self.versions = random.normal(size=(oldest + 1, SIZE)).astype(np.float32)
        self.deltas = random.normal(size=(updates, SIZE)).astype(np.float32)
        self.staleness = random.integers(0, oldest + 1, updates).tolist()
        self.examples = random.integers(1, 9, updates).tolist()

    def folded(self, order=None, **settings):
        run = RunSettings.of(rounds=1, target=1, schedule="buffered", **settings)
        strategy = strategy_for(run)
        contributions = [
            Contribution(
                f"t{place:03d}",
                self.examples[place],
                lambda place=place: Update(
                    f"t{place:03d}", self.examples[place], {"delta": self.deltas[place]}, self.staleness[place]
                ),
                place + 1,
                self.staleness[place],
                lambda place=place: self.versions[self.staleness[place]],
            )
            for place in order or range(len(self.deltas))
        ]
        believed = Believed(10**9, 0, ModelLimits({}, {}), (), Staleness.in_run(run, "buffered"))
        return fold(strategy, strategy.init(self.versions[0], SIZE), in_order(contributions), believed, Cohort(9))


@pytest.mark.parametrize("seed", range(5))
def test_fedbuff_is_line_11_to_13_of_its_algorithm(seed):
    problem = Problem(seed, updates=7)
    expected = problem.versions[0].astype(np.float64)
    for delta, staleness in zip(problem.deltas.astype(np.float64), problem.staleness, strict=True):
        expected += 0.5 / 7 * (1 + staleness) ** -0.5 * delta
    folded = problem.folded(strategy="fedbuff", server_learning_rate=0.5)
    np.testing.assert_allclose(folded.state.weights, expected, rtol=0, atol=2e-6)
    assert folded.diagnostics["stalest"] == max(problem.staleness)
    assert folded.diagnostics["staleness"] == pytest.approx(np.mean(problem.staleness))


@pytest.mark.parametrize("seed", range(5))
def test_fedasync_mixes_the_trained_model_into_the_newest_one(seed):
    problem = Problem(seed, updates=1)
    (staleness,) = problem.staleness
    trained = problem.versions[staleness].astype(np.float64) + problem.deltas[0]
    share = 0.7 * (1 + staleness) ** -0.5
    expected = (1 - share) * problem.versions[0] + share * trained
    folded = problem.folded(strategy="fedasync", mixing=0.7)
    np.testing.assert_allclose(folded.state.weights, expected, rtol=0, atol=2e-6)


def test_fedavg_in_a_buffer_weighs_by_examples_and_staleness():
    problem = Problem(3, updates=6)
    weights = np.array(problem.examples) / np.sum(problem.examples) * (1 + np.array(problem.staleness)) ** -0.5
    expected = problem.versions[0] + weights @ problem.deltas.astype(np.float64)
    np.testing.assert_allclose(problem.folded(strategy="fedavg").state.weights, expected, rtol=0, atol=2e-6)


def test_discounting_keeps_a_buffer_of_stale_updates_from_oscillating():
    """Gradient steps on a quadratic that come 16 versions late diverge when they count fully."""

    def distance(staleness):
        iterates = [np.ones(4)]
        for version in range(400):
            behind = min(16, version)
            step = -0.25 * iterates[version - behind]
            iterates.append(iterates[-1] + rule(staleness=staleness).weight(behind) * step)
        return float(np.abs(iterates[-1]).max())

    assert distance("polynomial") < 1e-3
    assert distance("constant") > 1e3


def test_updates_may_come_in_any_order():
    problem = Problem(1, updates=9)
    before = problem.folded(strategy="fedbuff").state.weights.tobytes()
    for order in ([3, 1, 8, 0, 2, 7, 4, 6, 5], list(range(8, -1, -1))):
        assert problem.folded(order, strategy="fedbuff").state.weights.tobytes() == before
