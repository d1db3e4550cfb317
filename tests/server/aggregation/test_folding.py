from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from edgefl.errors import RunError
from edgefl.manifest import Metric
from edgefl.wire.messages import MetricState
from edgefl_server.aggregation import (
    Believed,
    Cohort,
    Contribution,
    Folded,
    ModelLimits,
    RunSettings,
    StrategyState,
    Update,
    Updates,
    finalise,
    fold,
    strategy_for,
)
from edgefl_server.aggregation.strategies.fedavg import FedAvg

WEIGHTS = 3
MEAN, VARIANCE = 3, 4
LIMITS = ModelLimits(8, {"loss_sum": 1, "rows": 1, "right": 1, "all": 1}, ((1, 2),))
ACCURACY = Metric("accuracy", "mean", ("right", "all"))
BASE = np.array([0, 0, 0, 0.5, 1.0], np.float32)
SETTINGS = RunSettings(rounds=1, target=1)


def update(task_id: str, examples: int, delta: float = 0.0, statistics: Sequence[float] = (0, 0)) -> Update:
    sections = {"delta": np.full(WEIGHTS, delta, np.float32), "statistics": np.array(statistics, np.float32)}
    return Update(task_id, examples, sections)


def states(rows: float, loss: float, accuracy: float) -> tuple[MetricState, ...]:
    values = {"loss_sum": loss * rows, "rows": rows, "right": accuracy * rows, "all": rows}
    return tuple(MetricState(name, (value,)) for name, value in values.items())


def merged(
    updates: Sequence[Update], settings: RunSettings = SETTINGS, metrics: Sequence[tuple[MetricState, ...]] = ()
) -> Folded:
    strategy = strategy_for(settings)
    if metrics:
        updates = [replace(each, metrics=states) for each, states in zip(updates, metrics, strict=True)]
    believed = Believed(settings.max_examples, settings.max_weight_ratio, LIMITS, [ACCURACY])
    contributions = Updates.of(updates).contributions
    return fold(strategy, strategy.init(BASE, WEIGHTS), contributions, believed, Cohort(len(updates)))


def folded(updates: Sequence[Update], settings: RunSettings = SETTINGS) -> StrategyState:
    """What the strategy alone makes of them."""
    strategy = strategy_for(settings)
    return strategy.apply(strategy.init(BASE, WEIGHTS), Updates.of(updates), Cohort(len(updates)))[0]


def strategies() -> list[RunSettings]:
    return [
        SETTINGS,
        RunSettings.of(rounds=1, target=1, strategy="fedprox", mu=0.1),
        RunSettings.of(rounds=1, target=1, strategy="feddyn", mu=0.1),
        RunSettings.of(rounds=1, target=1, strategy="scaffold"),
        RunSettings.of(rounds=1, target=1, strategy="fedsgd", server_learning_rate=0.1),
    ]


@pytest.mark.parametrize("settings", strategies(), ids=lambda each: each.strategy)
def test_a_round_of_honest_devices_is_what_the_strategy_makes_of_it_to_the_last_bit(settings: RunSettings) -> None:
    random = np.random.default_rng(3)
    updates = []
    for index, examples in enumerate([100, 500, 410, 60]):
        each = update(f"t{index}", examples, statistics=random.normal(size=2) * 0.1)
        moved = random.normal(size=WEIGHTS).astype(np.float32)
        sections = {"delta": moved, "statistics": each.statistics}
        if settings.strategy == "fedsgd":
            sections = {"gradient": moved, "statistics": np.zeros(2, np.float32)}
        elif settings.strategy == "scaffold":
            sections["control"] = -moved
        each = replace(each, sections=sections)
        updates.append(each)
    result = merged(updates, settings)
    assert result.state.weights.tobytes() == folded(updates, settings).weights.tobytes()
    assert result.num_examples == 1070
    assert {name: result.diagnostics[name] for name in ("devices_capped", "weight_cap", "devices_bounded")} == {
        "devices_capped": 0,
        "weight_cap": 0,
        "devices_bounded": 0,
    }


@pytest.mark.parametrize("settings", strategies()[:3:2], ids=lambda each: each.strategy)
def test_a_device_that_says_it_has_two_to_the_53_rows_does_not_make_the_average_its_own(settings) -> None:
    updates = [update(f"t{index}", 100) for index in range(3)]
    liar = update("t9", 2**53, delta=1.0, statistics=[1, 1])
    result = merged([*updates, liar], settings)
    assert result.num_examples == 600
    assert (result.diagnostics["devices_capped"], result.diagnostics["weight_cap"]) == (1, 300)
    share = 0.5 if settings.strategy == "fedavg" else 0.25
    if settings.strategy == "fedavg":
        np.testing.assert_allclose(result.state.weights[:WEIGHTS], share)
    np.testing.assert_allclose(result.state.weights[MEAN], 0.5 + 0.5)  # statistics are always weighted


def test_nor_the_metrics_of_the_fleet() -> None:
    updates = [update("t1", 100), update("t2", 100), update("t3", 2**53)]
    lie = float(2**53)
    result = merged(updates, metrics=[states(100, 0.5, 0.9), states(100, 0.5, 0.9), states(lie, 0.0, 0.0)])
    values = finalise(result.metric_sums, [ACCURACY])
    assert values["accuracy"] == pytest.approx(0.45)
    assert values["loss"] == pytest.approx(0.25)
    assert result.metric_sums["rows"] == pytest.approx([400.0])


def test_a_device_that_the_run_caps_counts_in_the_metrics_for_as_much_as_in_the_weights() -> None:
    settings = replace(SETTINGS, max_examples=100, max_weight_ratio=0)
    result = merged([update("t1", 400), update("t2", 100)], settings, [states(400, 1, 0), states(100, 0, 1)])
    assert finalise(result.metric_sums, [ACCURACY]) == {"loss": 0.5, "accuracy": 0.5}


def test_statistics_that_one_device_makes_up_do_not_break_the_model() -> None:
    honest = [update(f"t{index}", 100, statistics=[0.25, 0.5]) for index in range(3)]
    result = merged([*honest, update("t9", 100, statistics=[1e30, -1e30])])
    assert result.state.weights[MEAN] < 60
    assert 0 <= result.state.weights[VARIANCE] < 2
    assert (result.diagnostics["devices_bounded"], result.diagnostics["statistics_bounded"]) == (1, 2)
    alone = merged([update("t9", 100, statistics=[0, -1e30])])
    assert alone.state.weights[VARIANCE] == 0


def test_many_statistics_go_through_a_temporary_file_to_the_same_bits(monkeypatch, tmp_path) -> None:
    updates = [update(f"t{index}", 100 + index, statistics=[1e9 * (index == 2), 0.25]) for index in range(4)]
    in_memory = merged(updates)
    monkeypatch.setattr("edgefl_server.aggregation.updates._IN_MEMORY", 0)
    assert merged(updates).state.weights.tobytes() == in_memory.state.weights.tobytes()


def test_a_round_without_outcomes_leaves_everything_as_it_was() -> None:
    result = merged([])
    assert result.state.weights is BASE
    assert (result.num_examples, result.metric_sums) == (0, {})
    assert result.diagnostics["outcomes"] == 0


@pytest.mark.parametrize("settings", strategies(), ids=lambda each: each.strategy)
def test_no_update_is_read_more_often_than_the_medians_of_statistics_need(settings: RunSettings) -> None:
    reads: list[str] = []

    def contribution(index: int, statistics: bool) -> Contribution:
        sections = {name: np.ones(WEIGHTS, np.float32) for name in ("delta", "control", "gradient")}
        if statistics:
            sections["statistics"] = np.ones(2, np.float32)

        def read() -> Update:
            reads.append(f"t{index}")
            return Update(f"t{index}", 10, sections)

        return Contribution(f"t{index}", 10, read)

    strategy = strategy_for(settings)
    believed = Believed(settings.max_examples, settings.max_weight_ratio, LIMITS, [])
    for size, times in ((5, 2), (WEIGHTS, 1)):
        reads.clear()
        state = strategy.init(BASE[:size], WEIGHTS)
        fold(strategy, state, [contribution(index, size > WEIGHTS) for index in range(4)], believed, Cohort(4))
        assert len(reads) == 4 * times


def test_a_strategy_that_does_without_an_update_still_has_its_metrics_counted() -> None:
    class First(type(strategy_for(SETTINGS))):
        def apply(self, state, updates, cohort):
            first = next(iter(updates))
            return state.moved(first.delta.astype(np.float64), np.zeros(0))

    believed = Believed(1000, 0, LIMITS, [ACCURACY])
    updates = [replace(update(f"t{i}", 10, delta=i), metrics=states(10, 1, 1)) for i in range(3)]
    found = fold(First(), StrategyState(BASE, WEIGHTS), Updates.of(updates).contributions, believed, Cohort())
    assert found.metric_sums["rows"] == [30.0]


@pytest.mark.parametrize(
    "lie",
    [
        {"loss_sum": 1e59},
        {"right": 1e6},
        {"loss_sum": -1e7},
        {"all": 1e9},
        {"all": -5.0},
        {"right": 50.0, "all": 0.0},
    ],
)
def test_what_a_device_must_have_made_up_does_not_count_in_the_fleets_metrics(lie: dict[str, float]) -> None:
    updates = [update(f"t{index}", 100) for index in range(4)]
    honest = [states(100, 0.7 + 0.1 * index, 0.5) for index in range(3)]
    liar = tuple(MetricState(each.name, (lie.get(each.name, each.values[0]),)) for each in states(100, 0.8, 0.5))
    found = merged(updates, metrics=[*honest, liar])
    values = finalise(found.metric_sums, [ACCURACY])
    assert values["accuracy"] == pytest.approx(0.5)
    assert values["loss"] == pytest.approx(0.8)
    assert found.diagnostics["metrics_left_out"] == 1


def test_metrics_of_unlike_honest_devices_are_summed_as_they_are() -> None:
    updates = [update(f"t{index}", 100) for index in range(4)]
    sent = [states(100, loss, accuracy) for loss, accuracy in ((0.01, 1.0), (0.02, 0.99), (9.5, 0.0), (2.3, 0.1))]
    found = merged(updates, metrics=sent)
    assert found.diagnostics["metrics_left_out"] == 0
    for name in ("loss_sum", "rows", "right", "all"):
        values = [each.values[0] for device in sent for each in device if each.name == name]
        assert found.metric_sums[name] == [pytest.approx(sum(values))]


class _Returning(FedAvg):
    """A strategy from outside that makes of FedAvg's result what the test says."""

    def __init__(self, change: Callable[[StrategyState, dict[str, float]], Any]) -> None:
        super().__init__()
        object.__setattr__(self, "_change", change)

    def apply(self, state: StrategyState, updates: Updates, cohort: Cohort) -> Any:
        return self._change(*super().apply(state, updates, cohort))


def fold_with(strategy: FedAvg) -> Folded:
    before = strategy.init(BASE, WEIGHTS)
    contributions = Updates.of([update("t0", 5, 0.5), update("t1", 5, 0.5)]).contributions
    return fold(strategy, before, contributions, Believed(100, 10, LIMITS, [ACCURACY]), Cohort(2))


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda state, figures: state, "a StrategyState and its figures, got StrategyState"),
        (lambda state, figures: (state.weights, figures), "a StrategyState and its figures, got tuple"),
        (lambda state, figures: (replace(state, weights=state.weights[:2]), figures), "5 elements.* got 2 and 3"),
        (lambda state, figures: (replace(state, weight_size=5), figures), "3 of them weights, got 5 and 5"),
        (lambda state, figures: (replace(state, weights=state.weights.astype(float)), figures), "got float64 of shape"),
        (lambda state, figures: (replace(state, weights=list(state.weights)), figures), "float32 vector, got list"),
        (lambda state, figures: (replace(state, slots={"m": np.zeros(3)}), figures), "return m as a float32 vector"),
        (lambda state, figures: (state, None), "dict of numbers, got None"),
        (lambda state, figures: (state, {"norm": "large"}), "dict of numbers, got {'norm': 'large'}"),
    ],
)
def test_what_a_strategy_returns_becomes_the_weights_of_a_run_only_if_it_is_a_state_of_it(change, why: str) -> None:
    with pytest.raises(RunError, match=why):
        fold_with(_Returning(change))


@pytest.mark.parametrize(
    ("weights", "statistics"), [(WEIGHTS - 1, 2), (1, 2), (WEIGHTS, 1), (WEIGHTS + 2, 0), (WEIGHTS, 3)]
)
def test_a_step_of_another_size_than_the_models_is_refused(weights: int, statistics: int) -> None:
    state = StrategyState(BASE, WEIGHTS)
    with pytest.raises(RunError, match="expects 3 weights and 2 statistics"):
        state.moved(np.zeros(weights), np.zeros(statistics))
    assert state.moved(np.ones(WEIGHTS), np.zeros(0))[0].weights.tolist() == [1, 1, 1, 0.5, 1]


def test_numbers_of_numpy_are_figures_too_and_those_that_are_not_finite_are_left_out() -> None:
    figures = {"norm": np.float32(0.5), "devices": np.int64(2), "ratio": math.nan, "largest": np.float32(np.inf)}
    found = fold_with(_Returning(lambda state, _: (state, figures)))
    assert not {"ratio", "largest"} & found.diagnostics.keys()
    assert (found.diagnostics["norm"], found.diagnostics["devices"]) == (0.5, 2.0)
    assert all(type(each) is float for each in found.diagnostics.values())


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_fold_says_whether_its_state_is_one_to_go_on_from(value: float) -> None:
    def spoilt(state: StrategyState, figures: dict[str, float]) -> Any:
        return replace(state, weights=np.where(np.arange(5) == 1, np.float32(value), state.weights)), figures

    assert fold_with(FedAvg()).is_finite
    assert not fold_with(_Returning(spoilt)).is_finite
    slots = {"m": np.array([0, value], np.float32)}
    assert not fold_with(_Returning(lambda state, figures: (replace(state, slots=slots), figures))).is_finite
