from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from edgefl.manifest import Metric
from edgefl.wire.messages import MetricState
from edgefl_server.aggregation import (
    Contribution,
    Merged,
    ModelLimits,
    RunSettings,
    StrategyState,
    Update,
    finalise,
    merge,
    strategy_for,
)

WEIGHTS = 3
MEAN, VARIANCE = 3, 4
LIMITS = ModelLimits(8, {"loss_sum": 1, "rows": 1, "right": 1, "all": 1}, ((1, 2),))
ACCURACY = Metric("accuracy", "mean", ("right", "all"))
BASE = np.array([0, 0, 0, 0.5, 1.0], np.float32)
SETTINGS = RunSettings(rounds=1, target=1)


def update(task_id: str, examples: int, delta: float = 0.0, statistics: Sequence[float] = (0, 0)) -> Update:
    return Update(task_id, examples, np.full(WEIGHTS, delta, np.float32), np.array(statistics, np.float32))


def states(rows: float, loss: float, accuracy: float) -> tuple[MetricState, ...]:
    values = {"loss_sum": loss * rows, "rows": rows, "right": accuracy * rows, "all": rows}
    return tuple(MetricState(name, (value,)) for name, value in values.items())


def merged(
    updates: Sequence[Update], settings: RunSettings = SETTINGS, metrics: Sequence[tuple[MetricState, ...]] = ()
) -> Merged:
    strategy = strategy_for(settings, WEIGHTS, len(updates))
    contributions = [
        Contribution(
            each.task_id, each.num_examples, lambda each=each, index=index: (each, (metrics or {index: ()})[index])
        )
        for index, each in enumerate(updates)
    ]
    return merge(strategy, strategy.init(BASE), contributions, settings, LIMITS, [ACCURACY], WEIGHTS)


def folded(updates: Sequence[Update], settings: RunSettings = SETTINGS) -> StrategyState:
    """What the strategy alone makes of them."""
    strategy = strategy_for(settings, WEIGHTS, len(updates))
    state = strategy.init(BASE)
    accumulator = strategy.start(state)
    for each in updates:
        accumulator = strategy.fold(accumulator, each)
    return strategy.finish(state, accumulator)[0]


def strategies() -> list[RunSettings]:
    return [
        SETTINGS,
        replace(SETTINGS, strategy="fedprox", mu=0.1),
        replace(SETTINGS, strategy="feddyn", mu=0.1),
        replace(SETTINGS, strategy="scaffold"),
        replace(SETTINGS, strategy="fedsgd", server_learning_rate=0.1),
    ]


@pytest.mark.parametrize("settings", strategies(), ids=lambda each: each.strategy)
def test_a_round_of_honest_devices_is_what_the_strategy_makes_of_it_to_the_last_bit(settings: RunSettings) -> None:
    random = np.random.default_rng(3)
    updates = []
    for index, examples in enumerate([100, 500, 410, 60]):
        each = update(f"t{index}", examples, statistics=random.normal(size=2) * 0.1)
        moved = random.normal(size=WEIGHTS).astype(np.float32)
        if settings.strategy == "fedsgd":
            each = replace(each, delta=np.empty(0, np.float32), statistics=np.zeros(2, np.float32), gradient=moved)
        else:
            each = replace(each, delta=moved, control=-moved if settings.strategy == "scaffold" else each.control)
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
    monkeypatch.setattr("edgefl_server.aggregation.merging._IN_MEMORY", 0)
    assert merged(updates).state.weights.tobytes() == in_memory.state.weights.tobytes()


def test_a_round_without_outcomes_leaves_everything_as_it_was() -> None:
    result = merged([])
    assert result.state.weights is BASE
    assert (result.num_examples, result.metric_sums) == (0, {})


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
