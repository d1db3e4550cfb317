"""Pairs of settings: which there are, that they cover all pairs, and what docs/coverage.md says of them."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keras_coverage.families import ROWS
from keras_coverage.pairwise.arrays import covering
from keras_coverage.pairwise.combining import Combined, combine
from keras_coverage.pairwise.record import Record
from keras_coverage.pairwise.share import with_combinations, written_shares
from keras_coverage.pairwise.subjects import SUBJECTS, unvalued
from keras_coverage.pairwise.trials import Trial, complaints
from keras_coverage.pairwise.values import CONSTANT, ONCE
from keras_coverage.public import public

DOCUMENT = Path(__file__).parents[2] / "docs" / "coverage.md"
NOT_COMBINED = {
    *("Layer", "Loss", "Mean", "MeanMetricWrapper"),
    *("LossScaleOptimizer", "MultiOptimizer"),
    *("CTC", "Circle"),
}
"""Base classes, whose subclasses are combined; containers of what is combined by itself; and losses that want targets
or outputs of a kind of their own, which are converted as they are only."""

SAMPLE = {
    "layers.Conv3D": [
        {"groups": 2, "dilation_rate": 2, "data_format": "channels_first"},
        {"groups": 2, "dilation_rate": 2, "padding": "same"},
    ],
    "layers.Conv1D": [{"data_format": "channels_first", "dilation_rate": 2, "padding": "same", "groups": 2}],
    "layers.Resizing": [
        {"pad_to_aspect_ratio": True, "interpolation": "bicubic"},
        {"pad_to_aspect_ratio": True, "interpolation": "nearest", "data_format": "channels_first"},
    ],
    "layers.Lambda": [{"activity_regularizer": "l2"}],
    "layers.SpectralNormalization": [{"layer": "Embedding", "activity_regularizer": "l2"}],
    "layers.Wrapper": [{}],
    "metrics.CosineSimilarity": [{"axis": 1, "rank": 2}],
    "metrics.F1Score": [{"average": None}],
    "metrics.Precision": [{"thresholds": [0.2, 0.6], "top_k": 2}, {"thresholds": [0.2, 0.6], "rank": 2}],
    "metrics.R2Score": [{"class_aggregation": None}],
    "metrics.SparseCategoricalCrossentropy": [{"ignore_class": 1, "rank": rank} for rank in (1, 2)],
    "metrics.TruePositives": [{"thresholds": [0.2, 0.6]}],
}
"""Pairs that once did not go together, by what it was that they failed at."""


@given(st.lists(st.integers(1, 4), min_size=1, max_size=6), st.integers(0, 99))
def test_every_pair_that_is_accepted_with_the_usual_values_is_in_a_case(sizes, seed):
    values = {f"a{index}": list(range(size)) for index, size in enumerate(sizes)}
    forbidden = {"a0": sizes[0] - 1, "a1": sizes[1] - 1} if len(sizes) > 1 and min(sizes[:2]) > 1 else None

    def accepts(settings):
        return forbidden is None or not forbidden.items() <= settings.items()

    array = covering(values, accepts, seed)
    assert all(map(accepts, array.cases))
    for left, right in itertools.combinations(values, 2):
        for pair in itertools.product(values[left], values[right]):
            wanted = dict(zip((left, right), pair))
            found = any(wanted.items() <= case.items() for case in array.cases)
            assert found != (forbidden is not None and forbidden.items() <= wanted.items()), wanted
    assert array.conflicts == ([forbidden] if forbidden else [])


def test_every_class_that_converts_is_combined():
    missing = [
        f"{section}.{api.__name__}"
        for section in ("layers", "losses", "optimizers", "metrics")
        for api in public(section)
        if ROWS[api].answer == "yes" and f"{section}.{api.__name__}" not in SUBJECTS
    ]
    assert {name.split(".")[1] for name in missing} == NOT_COMBINED


@pytest.mark.parametrize("name", SUBJECTS)
def test_every_argument_has_values(name):
    assert not unvalued(SUBJECTS[name], [*CONSTANT, *ONCE])


def test_what_was_found_is_found_again_by_the_same_version_only(tmp_path):
    path = tmp_path / "record"
    Record(path, "one").put("key", "value")
    assert Record(path, "one").get("key") == "value"
    assert Record(path, "two").get("key") is None


def test_the_document_knows_the_classes_and_at_least_95_in_100_cases_convert():
    document = DOCUMENT.read_text()
    shares = written_shares(document)
    assert shares.keys() <= SUBJECTS.keys()
    assert with_combinations(document, []).startswith(document.partition("## Combinations")[0].rstrip())
    assert written_shares(with_combinations(document, [])) == shares
    converted, cases = (sum(each) for each in zip(*shares.values()))
    assert converted >= 0.95 * cases


def test_classes_that_were_not_tried_again_keep_their_rows():
    before = with_combinations(
        "# What converts\n", [Combined("layers.Dense", {"a": "", "b": "b: No"}), Combined("layers.Dot", {"c": ""})]
    )
    after = with_combinations(before, [Combined("layers.Dense", {"a": "", "b": ""})])
    assert written_shares(after) == {"layers.Dense": (2, 2), "layers.Dot": (1, 1)}
    assert "3 of 3 do (100.0 %), of 2\n" in after
    assert with_combinations(after, []) == after


@pytest.mark.parametrize(
    "name", [pytest.param(each, marks=[pytest.mark.slow] if each.startswith("metrics.") else []) for each in SAMPLE]
)
def test_pairs_that_once_failed_convert(name):
    subject = SUBJECTS[name]
    found = [
        complaint for _, complaint in complaints([Trial(subject, {**subject.usual, **each}) for each in SAMPLE[name]])
    ]
    assert not any(found), found


@pytest.mark.slow
@pytest.mark.parametrize("name", SUBJECTS)
def test_share_of_a_class(name, tmp_path):
    found = combine(name, tmp_path / "record")
    assert (found.converted, len(found.complaints)) == written_shares(DOCUMENT.read_text())[name]
