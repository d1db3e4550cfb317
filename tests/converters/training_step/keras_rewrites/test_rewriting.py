"""Keras is what it was when the rewrites end, whatever happened meanwhile."""

from __future__ import annotations

import pytest

from edgefl_converters.training_step.keras_rewrites.rewrite import Rewrite
from edgefl_converters.training_step.keras_rewrites.rewriting import REWRITES, rewritten_keras


def present():
    return {
        (name, attribute): getattr(rewrite.owner, attribute)
        for name, rewrite in REWRITES.items()
        for attribute in rewrite.attributes
    }


def test_each_is_found_in_the_folder_and_replaces_what_no_other_does():
    assert sorted(REWRITES) == [
        "addition",
        "batch_normalization",
        "ctc",
        "ctc_of_sparse_labels",
        "functions",
        "gelu",
        "gru",
        "layer_normalization",
        "loops",
        "lora of Conv1D",
        "lora of Dense",
        "lora of EinsumDense",
        "lora of Embedding",
        "lora of ReversibleEmbedding",
        "lora of convolutions",
        "lstm",
        "recurrence",
        "sparse_division",
        "tensor_arrays",
        "weighted_confusions",
    ]
    replaced = [(id(each.owner), attribute) for each in REWRITES.values() for attribute in each.attributes]
    assert len(set(replaced)) == len(replaced)


def test_all_of_them_hold_until_the_end():
    before = present()
    with rewritten_keras():
        assert all(present()[key] is not original for key, original in before.items())
    assert present() == before


def test_only_those_that_are_named_hold():
    before = present()
    with rewritten_keras("gelu"):
        assert [key for key, original in before.items() if present()[key] is not original] == [("gelu", "gelu")]


def test_one_that_cannot_be_made_leaves_nothing_behind(monkeypatch):
    def fail(original):
        raise ValueError("another Keras")

    before = present()
    monkeypatch.setitem(REWRITES, "batch_normalization", Rewrite(REWRITES["gelu"].owner, ("gelu",), fail))
    with pytest.raises(ValueError, match="another Keras"), rewritten_keras():
        pass
    monkeypatch.undo()
    assert present() == before
