"""How good weights are for a fleet, as a pure function of what devices found."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgefl.manifest import Metric
from edgefl.wire.messages import MetricState
from edgefl_server.aggregation import (
    Believed,
    Contribution,
    ModelLimits,
    RunSettings,
    Spread,
    StrategyState,
    Update,
    evaluation_settings,
    fold_evaluations,
    is_better,
    is_due,
    next_evaluation,
    spread_over,
)

METRICS = (Metric("recall", "share", ("hits", "misses")),)
BELIEVED = Believed(1, 1.0, ModelLimits(8, {"hits": 1, "misses": 1, "loss_sum": 1, "rows": 1}), METRICS)
"""Of caps that would bite in training."""
WEIGHTS = StrategyState(np.zeros(3, np.float32), 3)


def contribution(number: int, examples: int, **states: float) -> Contribution:
    metrics = tuple(MetricState(name, (float(value),)) for name, value in states.items())
    update = Update(f"t{number:03d}", examples, {}, metrics=metrics)
    return Contribution(update.task_id, examples, lambda: update)


def evaluated(*contributions: Contribution, **settings: int):
    values = {"rounds": 1, "target": 1, "kind": "evaluate", **settings}
    return fold_evaluations(WEIGHTS, contributions, BELIEVED, RunSettings.of(**values))


def test_a_metric_that_is_no_mean_is_that_of_all_rows_and_not_the_mean_of_the_devices() -> None:
    folded = evaluated(
        contribution(1, 100, hits=90, misses=10, loss_sum=50, rows=100),
        contribution(2, 2, hits=0, misses=2, loss_sum=4, rows=2),
        shown_from=1,
    )
    hits, misses = folded.metric_sums["hits"][0], folded.metric_sums["misses"][0]
    assert hits / (hits + misses) == 90 / 102
    assert folded.metric_sums["loss_sum"] == [54.0]
    assert folded.num_examples == 102
    assert folded.findings["spread"]["recall"]["mean"] == pytest.approx(0.45)
    assert folded.state is WEIGHTS


def test_a_device_that_sends_no_states_of_a_metric_counts_for_the_others_only() -> None:
    folded = evaluated(
        contribution(1, 4, loss_sum=8, rows=4), contribution(2, 4, loss_sum=4, rows=4, hits=1, misses=1), shown_from=2
    )
    assert folded.metric_sums["loss_sum"] == [12.0]
    assert set(folded.findings["spread"]) == {"loss"}


def test_the_same_outcomes_give_the_same_bits_in_the_order_of_their_tasks() -> None:
    random = np.random.default_rng(0)
    made = [contribution(i, 7, loss_sum=random.normal() ** 2, rows=7) for i in range(40)]
    first, again = evaluated(*made), evaluated(*made)
    assert first.metric_sums == again.metric_sums
    assert first.findings == again.findings


@given(st.integers(1, 5), st.lists(st.integers(1, 4), min_size=1, max_size=30), st.randoms(use_true_random=False))
def test_every_version_that_is_due_is_evaluated_unless_a_newer_one_is_due_meanwhile(every, busy, random) -> None:
    newest, evaluated_ones = 0, [0]
    for steps in busy:  # an evaluation takes so many rounds
        newest += steps
        due = next_evaluation(every, evaluated_ones[-1], newest, over=False)
        if due is None:
            assert newest // every * every == evaluated_ones[-1]
        else:
            assert due % every == 0
            assert evaluated_ones[-1] < due <= newest < due + every
            evaluated_ones.append(due)
    last = next_evaluation(every, evaluated_ones[-1], newest, over=True)
    assert (last or evaluated_ones[-1]) == newest
    assert next_evaluation(every, newest, newest, over=True) is None


def test_the_first_version_is_evaluated_whatever_the_pace() -> None:
    assert next_evaluation(7, None, 0, over=False) == 0
    assert [version for version in range(10) if is_due(4, version, 9)] == [0, 4, 8, 9]
    assert [version for version in range(10) if is_due(4, version, None)] == [0, 4, 8]


def test_an_evaluation_is_set_like_the_rounds_of_its_run() -> None:
    run = RunSettings.of(
        rounds=9, target=4, minimum=3, deadline_seconds=50, evaluate_every=1, evaluate_cohort=2, epochs=7, seed=5
    )
    own = evaluation_settings(run)
    assert (own.kind, own.target, own.effective_minimum, own.deadline_seconds) == ("evaluate", 2, 2, 50)
    assert RunSettings.from_json(own.to_json()) == own
    assert own.seed not in (None, run.seed)
    assert evaluation_settings(run) == own
    assert evaluation_settings(RunSettings.of(rounds=9, target=4, evaluate_every=1)).target == 4


def test_quantiles_are_told_from_so_many_devices_on() -> None:
    values = [0.1 * each for each in range(10)]
    few, many = Spread.of("accuracy", values, 11), Spread.of("accuracy", values, 10)
    assert set(few.to_json()) == {"mean", "deviation"}
    assert set(many.to_json()) == {"mean", "deviation", "quantiles", "worst_tenth"}
    assert many.worst_tenth == 0.0
    assert Spread.of("loss", values).worst_tenth == pytest.approx(0.9)


def test_a_metric_of_too_few_devices_is_left_out_and_the_others_are_not() -> None:
    spread, devices = spread_over([{"a": 1.0, "b": 2.0}, {"a": 3.0}], shown_from=2)
    assert (set(spread), devices) == ({"a"}, 2)
    assert spread_over([]) == ({}, 0)


def test_less_of_a_loss_is_better() -> None:
    assert is_better("val_loss", 0.5, 1.0)
    assert not is_better("accuracy", 0.5, 1.0)
