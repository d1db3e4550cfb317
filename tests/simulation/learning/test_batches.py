"""What clients' data means, as far as no TensorFlow is needed for it: tests/converters/learning has the rest."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgefl.errors import DataError
from edgefl.model_file import ModelFile
from edgefl_device_runtime.tasks import arrange
from edgefl_simulation.learning import Metrics
from edgefl_simulation.learning.batch_trainer import pieces
from edgefl_simulation.learning.batches import client_data


@given(st.lists(st.integers(1, 9), max_size=30))
def test_the_batches_of_all_pieces_are_the_batches_that_there_are(batches):
    found, end = [], 0
    for start, stop, size in pieces(batches):
        assert start == end
        found += [min(size, stop - row) for row in range(start, stop, size)]
        end = stop
    assert found == batches


def test_epochs_of_a_dataset_with_a_rest_are_pieces():
    assert list(pieces([8, 8, 3] * 2)) == [(0, 19, 8), (19, 38, 8)]
    assert list(pieces([8, 8, 8])) == [(0, 24, 8)]
    assert list(pieces([3, 8])) == [(0, 3, 3), (3, 11, 8)]


def test_a_model_with_several_inputs_and_outputs_takes_them_by_name_or_in_its_order(two_inputs_file):
    manifest = ModelFile.map(two_inputs_file).manifest
    measured, words = np.ones((3, 4), np.float32), np.ones((3, 3), np.int32)
    kind, size = np.zeros(3, np.int32), np.ones((3, 1), np.float32)
    by_name = {"x": {"words": words, "measured": measured}, "y": {"size": size, "kind": kind}}
    for form in (by_name, ((measured, words), (kind, size))):
        data = client_data([form, form], manifest, "It")
        examples = arrange(data.arrays, manifest)
        assert {name: array.shape for name, array in examples.x.items()} == {"measured": (6, 4), "words": (6, 3)}
        assert [len(array) for array in examples.y.values()] == [6, 6]
        assert data.batches == (3, 3)
    with pytest.raises(DataError, match=r"2 targets \(.*\), got 1"):
        client_data([((measured, words), (kind,))], manifest, "It")


def test_metrics_are_attributes_and_a_mapping():
    metrics = Metrics({"loss": 0.5, "accuracy": 1.0})
    assert metrics.loss == metrics["loss"] == 0.5
    assert dict(metrics) == {"loss": 0.5, "accuracy": 1.0}
    assert repr(metrics) == "<loss=0.5, accuracy=1>"
    assert pickle.loads(pickle.dumps(metrics)) == copy.copy(metrics) == metrics
    with pytest.raises(AttributeError, match="no metric 'los'; there are loss, accuracy"):
        _ = metrics.los
