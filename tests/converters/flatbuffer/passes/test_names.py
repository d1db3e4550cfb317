"""No names are left that depend on the trace."""

from __future__ import annotations

import keras
from keras import layers

from edgefl_converters.building.building import build
from edgefl_converters.flatbuffer.file import FlatModel


def mlp():
    keras.utils.set_random_seed(6)
    model = keras.Sequential([keras.Input((64,)), layers.Dense(256, "relu"), layers.Dense(256), layers.Dense(2)])
    model.compile("adam", "mse")
    return model


def test_no_tensor_and_no_subgraph_has_a_name():
    subgraphs = FlatModel(build(mlp(), batch_size=4).data).subgraphs

    assert not any(each.name for each in subgraphs)
    assert not any(tensor.name for each in subgraphs for tensor in each.tensors)
