"""Training is the first subgraph, and whoever calls others finds them."""

from __future__ import annotations

import keras
from keras import layers
from tensorflow.lite.python import schema_py_generated as schema

from edgefl_converters.building.building import build
from edgefl_converters.flatbuffer.file import FlatModel


def mlp():
    keras.utils.set_random_seed(6)
    model = keras.Sequential([keras.Input((64,)), layers.Dense(256, "relu"), layers.Dense(256), layers.Dense(2)])
    model.compile("adam", "mse")
    return model


def test_training_is_the_first_subgraph():
    model = FlatModel(build(mlp(), batch_size=4).data).model
    by_name = {each.signatureKey.decode(): each.subgraphIndex for each in model.signatureDefs}

    assert by_name["train"] == 0
    assert len(set(by_name.values())) == len(by_name)


def test_the_initialiser_that_is_called_assigns_variables():
    file = FlatModel(build(mlp(), batch_size=4).data)

    (initialiser,) = [subgraph for _, subgraph in file.initialiser_subgraphs()]

    assert schema.BuiltinOperator.ASSIGN_VARIABLE in map(file.builtin, initialiser.operators)
