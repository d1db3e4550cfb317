"""Saying what is trained: what can be said, and how the model file keeps it."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgefl.errors import InvalidSettingError
from edgefl_converters import FineTuning

PATTERNS = st.lists(st.text(min_size=1, max_size=5), max_size=3)
CHOICES = st.builds(
    FineTuning,
    trainable=PATTERNS,
    frozen=PATTERNS,
    last_layers=st.none() | st.integers(1, 9),
    biases_only=st.booleans(),
)
ADAPTERS = st.builds(
    FineTuning,
    trainable=PATTERNS,
    lora_rank=st.integers(1, 64),
    lora_targets=PATTERNS,
    lora_alpha=st.none() | st.floats(0.1, 100),
)


@given(CHOICES | ADAPTERS)
def test_the_model_file_gives_back_what_was_said(choice):
    assert FineTuning.from_json(json.loads(json.dumps(choice.as_json()))) == choice


def test_nothing_said_leaves_no_trace():
    assert FineTuning().is_default
    assert FineTuning().as_json() == {}
    assert FineTuning.from_json({"of a later version": 1}) == FineTuning()


def test_adapters_everywhere_are_written_down_with_their_pattern():
    assert FineTuning(lora_rank=4).as_json() == {"lora": {"rank": 4, "alpha": None, "targets": ["*"]}}


def test_a_single_pattern_needs_no_list():
    assert FineTuning(trainable="head", frozen="conv*") == FineTuning(trainable=["head"], frozen=("conv*",))
    assert FineTuning(lora_rank=2, lora_targets="head").lora_targets == ("head",)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"last_layers": 0}, "`last_layers` must be a whole number of at least 1, got 0"),
        ({"last_layers": True}, "`last_layers` must be a whole number"),
        ({"lora_rank": -1}, "`lora_rank` must be a whole number of at least 1, got -1"),
        ({"lora_rank": 2.0}, "`lora_rank` must be a whole number"),
        ({"lora_rank": 2, "lora_alpha": 0}, "`lora_alpha` must be a number above 0"),
        ({"lora_rank": 2, "lora_alpha": float("nan")}, "`lora_alpha` must be a number above 0"),
        ({"lora_rank": 2, "lora_alpha": float("inf")}, "`lora_alpha` must be a number above 0"),
        ({"lora_alpha": 8}, r"`lora_rank` is missing.*`lora_rank=4`"),
        ({"lora_targets": "head"}, "`lora_rank` is missing"),
        ({"lora_rank": 2, "biases_only": True}, r"Adapters are no biases.*`trainable='bias'`"),
    ],
)
def test_what_has_no_meaning_is_refused(settings, message):
    with pytest.raises(InvalidSettingError, match=message):
        FineTuning(**settings)
