"""Constants with equal content lie in the file once."""

from __future__ import annotations

import keras
import pytest
from keras import layers

from edgefl_converters.building.building import build
from edgefl_converters.flatbuffer.file import FlatModel
from edgefl_converters.flatbuffer.pass_context import PassContext
from edgefl_converters.flatbuffer.passes.equal_buffers import share_equal_buffers
from edgefl_converters.settings.options import Options


def mlp():
    keras.utils.set_random_seed(6)
    model = keras.Sequential([keras.Input((64,)), layers.Dense(256, "relu"), layers.Dense(256), layers.Dense(2)])
    model.compile("adam", "mse")
    return model


@pytest.mark.slow
def test_without_it_a_file_is_larger_and_says_the_same():
    shared, plain = (
        build(mlp(), batch_size=4),
        build(mlp(), batch_size=4, options=Options(without_passes="equal_buffers")),
    )

    assert len(shared.data) < len(plain.data)
    assert shared.manifest.weights_hash == plain.manifest.weights_hash


def test_constants_share_a_buffer_and_parameters_keep_theirs():
    file = FlatModel(build(mlp(), batch_size=4, options=Options(without_passes="equal_buffers")).data)
    subgraph = file.subgraphs[0]
    first, second, own = (file.integers(subgraph, [7, 7, 7]) for _ in range(3))
    context = PassContext(file, "all", buffers={"parameter": subgraph.tensors[own].buffer})

    share_equal_buffers(context)

    buffers = [subgraph.tensors[each].buffer for each in (first, second, own)]
    assert buffers[0] == buffers[1] != buffers[2]
