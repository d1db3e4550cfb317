from __future__ import annotations

from typing import Any

import pytest

from local_steps.bars import BARS, FASTEST, JUDGED, judge
from local_steps.cases import CASES
from local_steps.contending import CONTENDERS, PEERS
from local_steps.losses import differing
from local_steps.table import COLUMNS, lines, with_ratios

LOSSES = [2.5, 2.3, 2.1, 2.0]


def row(contender: str, step_ms: float | None, **settings: Any) -> dict[str, Any]:
    """As the benchmark makes them, before the ratios; without a time where it was left out."""
    family = next(each.family for each in CONTENDERS if each.name == contender)
    found = {"model": "2nn", "batch": 10, "threads": 1, "contender": contender, "family": family}
    if step_ms is None:
        return {**found, "why_not": "left out: no reason"}
    figures = {"step_ms": step_ms, "peak_rss_mb": 50.0, "pss_mb": 40.0, "cold_start_s": 0.25}
    return {**found, "why_not": None, **figures, "live_mb": 1.0, "weights_mb": 2.0, **settings}


def test_a_contender_whose_first_loss_is_another_is_named() -> None:
    losses = {"one": LOSSES, "two": LOSSES, "other": [2.51, 2.3, 2.1, 2.0]}
    assert differing(losses) == {"other": "first loss 2.51, others have 2.5"}


def test_a_contender_that_learns_otherwise_is_named() -> None:
    found = differing({"one": LOSSES, "two": LOSSES, "other": [2.5, 2.3, 2.1, 2.001]})
    assert found == {"other": "loss after 3 steps 2.001, others have 2"}


def test_contenders_that_all_stand_still_are_named() -> None:
    assert set(differing({"one": [2.5] * 4, "two": [2.5] * 4})) == {"one", "two"}


def test_a_loss_that_is_not_a_number_differs() -> None:
    assert "nan" in differing({"one": LOSSES, "two": LOSSES, "other": [2.5, 2.3, 2.1, float("nan")]})["other"]


def test_rounding_is_no_difference() -> None:
    assert differing({"one": LOSSES, "other": [loss * (1 + 2e-5) for loss in LOSSES]}) == {}


def test_ratios_are_to_the_fastest_form_of_each_family() -> None:
    rows = [row(JUDGED, 3.0), row("ONNX Runtime", 6.0), row("PyTorch hand-written", 2.0)]
    rows += [row("PyTorch torch.optim.SGD", 4.0), row("tf.function graph", None)]
    ratios = [each["ratios"] for each in with_ratios(rows)]
    assert ratios[0] == {FASTEST: 1.5, "ONNX Runtime": 0.5, "PyTorch": 1.5, "tf.function": None}
    assert ratios[3]["PyTorch"] == 2.0
    assert set(ratios[4].values()) == {None}


def test_edgefl_is_no_peer_of_itself() -> None:
    rows = with_ratios([row(JUDGED, 3.0), row(JUDGED, 1.0)])
    assert all(value is None for each in rows for value in each["ratios"].values())


def test_the_table_says_who_was_left_out_and_why() -> None:
    text = "\n".join(lines(with_ratios([row(JUDGED, 3.0), row("ONNX Runtime", None)])))
    assert "left out: no reason" in text
    assert all(column in text for column in COLUMNS)


def everyone(ours: float) -> list[dict[str, Any]]:
    return [row(each.name, ours if each.name == JUDGED else 1.0) for each in CONTENDERS if not each.only]


def test_bars_say_whether_they_are_met() -> None:
    texts = [str(each) for each in judge(everyone(1.0))]
    assert "2nn, batch 10, threads 1: step_ms / ONNX Runtime 1: must ≤ 1.2 met, goal ≤ 0.8 NOT MET" in texts
    assert "2nn, batch 10, threads 1: cold_start_s 0.25: must ≤ 0.3 met, goal ≤ 0.2 NOT MET" in texts


def test_memory_counts_above_what_cannot_be_done_without() -> None:
    (found,) = (each for each in judge([row(JUDGED, 1.0, model="lstm")]) if "peak" in each.what)
    assert found.value == 47.0


def test_the_fastest_peer_is_known_only_when_all_ran() -> None:
    rows = [{**each, "model": "lstm"} for each in everyone(1.0)]
    steps = [each for each in judge(rows) if "step_ms" in each.what]
    assert [each.value for each in steps] == [1.0]
    without = [each for each in rows if each["family"] != "PyTorch"]
    steps = [each for each in judge(without) if "step_ms" in each.what]
    assert [each.value for each in steps] == [None]
    assert "not measured" in str(steps[0])


def test_bars_of_one_thread_do_not_hold_for_two() -> None:
    rows = [{**each, "threads": 2} for each in everyone(1.0)]
    assert not [each for each in judge(rows) if each.what.startswith("step_ms")]


@pytest.mark.parametrize("bar", BARS, ids=str)
def test_bars_are_about_what_is_measured(bar: Any) -> None:
    assert set(bar.models) <= set(CASES)
    assert bar.to in ("", FASTEST, *PEERS)
    assert bar.must is not None or bar.goal is not None


def test_every_model_has_a_bar() -> None:
    assert {name for bar in BARS for name in bar.models} == set(CASES)
