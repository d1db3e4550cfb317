"""What surgery leaves in a file: buffers, names, order of subgraphs."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import layers
from tensorflow.lite.python import schema_py_generated as schema

from edgefl.model_file import ModelFile
from edgefl_converters.building.building import build
from edgefl_converters.flatbuffer.file import FlatModel


@pytest.fixture(scope="module")
def built():
    keras.utils.set_random_seed(6)
    model = keras.Sequential(
        [keras.Input((64,)), layers.Dense(256, activation="relu"), layers.Dense(256), layers.Dense(2)]
    )
    model.compile("adam", "mse")
    return build(model, batch_size=4)


@pytest.fixture(scope="module")
def content(built):
    return schema.ModelT.InitFromPackedBuf(built.data, 0)


def test_slots_that_start_at_zero_are_not_stored(built):
    assert len(built.data) < 4 * built.manifest.layout.size * 1.15 + 100_000


def test_parameters_with_equal_values_still_have_a_buffer_each(built):
    biases = [each for each in built.manifest.parameters if each.name.endswith("bias")]
    assert len({each.buffer for each in biases}) == len(biases) == 3
    file = ModelFile(built.data)
    assert all(not file.initial_value(each).any() for each in biases)


def test_parameters_lie_where_a_processor_can_load_them(built):
    whole = np.frombuffer(built.data, np.uint8)
    for each in built.manifest.parameters:
        start = ModelFile(built.data).initial_value(each).__array_interface__["data"][0]
        assert (start - whole.__array_interface__["data"][0]) % 16 == 0


def test_training_is_the_first_subgraph(content):
    by_name = {each.signatureKey.decode(): each.subgraphIndex for each in content.signatureDefs}
    assert by_name["train"] == 0
    assert len(set(by_name.values())) == len(by_name) == 8


def test_no_names_are_left_that_depend_on_the_trace(content):
    assert not any(tensor.name for subgraph in content.subgraphs for tensor in subgraph.tensors)


def test_every_buffer_and_tensor_is_used(content):
    used = {tensor.buffer for subgraph in content.subgraphs for tensor in subgraph.tensors}
    used |= {entry.buffer for entry in content.metadata}
    assert used | {0} == set(range(len(content.buffers)))


def test_packing_again_changes_nothing(built):
    assert FlatModel(built.data).pack() == built.data
