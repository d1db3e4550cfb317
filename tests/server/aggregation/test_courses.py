"""How learning rates and epochs change by version, when a run has no patience any more, and what is refused."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest

from edgefl.errors import InvalidSettingError
from edgefl_server.aggregation import Next, RunSettings, after_fold


def rates(**settings):
    run = RunSettings(**{"rounds": 8, "target": 1, "learning_rate": 1.0, **settings})
    return [run.learning_rate_from(version) for version in range(8)]


def test_a_rate_falls_by_steps_gradually_or_along_a_cosine():
    every = {"learning_rate_every": 2, "learning_rate_factor": 0.5}
    assert rates(learning_rate_course="step", **every) == [1, 1, 0.5, 0.5, 0.25, 0.25, 0.125, 0.125]
    assert rates(learning_rate_course="exponential", **every) == pytest.approx([0.5 ** (v / 2) for v in range(8)])
    cosine = [(1 + math.cos(math.pi * v / 8)) / 2 for v in range(8)]
    assert rates(learning_rate_course="cosine") == pytest.approx(cosine)
    assert rates(learning_rate_course="cosine", learning_rate_every=2)[2:] == [0] * 6
    assert rates(learning_rate_course="cosine", learning_rate_every=2, learning_rate_least=0.1)[2:] == [0.1] * 6
    assert rates(learning_rate_course="step", learning_rate_least=0.3, **every)[4:] == [0.3] * 4


def test_a_rate_rises_over_the_warm_up():
    assert rates(learning_rate_warm_up=4) == [0.25, 0.5, 0.75, 1, 1, 1, 1, 1]
    assert rates() == [1] * 8


def test_epochs_are_whole_and_at_least_one():
    run = RunSettings(rounds=8, target=1, epochs=5, epochs_course="step", epochs_every=1)
    assert [run.epochs_of(version) for version in range(5)] == [5, 3, 1, 1, 1]
    assert RunSettings(rounds=8, target=1, epochs=5).epochs_of(7) == 5


def test_a_course_over_all_rounds_is_another_one_once_there_are_more_and_for_earlier_versions_that_of_then():
    before = RunSettings(rounds=4, target=1, learning_rate=1.0, learning_rate_course="cosine", epochs=8)
    after = replace(before, rounds=8, earlier_rounds=before.noting(4, 3))
    assert [after.learning_rate_from(v) for v in range(3)] == [before.learning_rate_from(v) for v in range(3)]
    assert after.learning_rate_from(3) == pytest.approx((1 + math.cos(math.pi * 3 / 8)) / 2)
    assert RunSettings.from_json(json.loads(json.dumps(after.to_json()))) == after
    assert "earlier_rounds" not in before.to_json()
    fixed = replace(before, learning_rate_every=4)
    assert fixed.noting(4, 3) == ()  # nothing depends on how many rounds there are
    epochs = RunSettings(rounds=4, target=1, epochs=8, epochs_course="cosine")
    assert replace(epochs, rounds=9, earlier_rounds=epochs.noting(4, 9)).epochs_of(2) == epochs.epochs_of(2) == 4


@pytest.mark.parametrize(
    ("values", "metric", "ends"),
    [
        ([3, 2, 1], "loss", False),
        ([1, 2, 3], "loss", True),
        ([3, 1, 1, 1], "loss", True),
        ([3, 1, 1, 0.9], "loss", False),
        ([0.5, 0.6, 0.7], "accuracy", False),
        ([0.7, 0.6, 0.7], "accuracy", True),
        ([1, 2], "loss", False),
    ],
)
def test_a_run_ends_when_its_metric_has_not_got_better_for_so_many_evaluations(values, metric, ends):
    run = RunSettings(rounds=99, target=1, patience=2, patience_metric=metric)
    why = run.why_over(values)
    assert bool(why) is ends
    assert not ends or f"{metric} has not got better than" in why
    assert after_fold(3, 99, enough=why).next is (Next.DONE if ends else Next.COHORT)


def test_the_model_file_says_whether_less_of_a_metric_is_better_and_how_much_counts():
    run = RunSettings(rounds=9, target=1, patience=1, patience_metric="gain", patience_least=0.5)
    assert run.why_over([1.0, 1.4]) == "gain has not got better than 1 for 1 evaluations"
    assert run.why_over([1.0, 1.6]) == ""
    assert run.why_over([2.0, 1.0], "down") == ""


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"learning_rate_course": "linear"}, "expects one of constant, step, exponential, cosine, got 'linear'"),
        ({"learning_rate_course": "step"}, "learning_rate_course step expects learning_rate_every"),
        ({"learning_rate_every": 3}, "learning_rate_every has no meaning with learning_rate_course constant"),
        ({"epochs_course": "cosine", "epochs_factor": 0.1}, "epochs_factor has no meaning with epochs_course cosine"),
        ({"patience_metric": "accuracy"}, "patience_metric has no meaning without patience"),
        ({"strategy": "fedsgd", "epochs_course": "cosine"}, "epochs_course has no meaning with strategy fedsgd"),
        ({"strategy": "fedsgd", "learning_rate_warm_up": 2}, "learning_rate_warm_up has no meaning"),
    ],
)
def test_what_contradicts_is_refused(settings, message):
    with pytest.raises(InvalidSettingError, match=message):
        RunSettings.of(**{"rounds": 1, "target": 1, **settings})
