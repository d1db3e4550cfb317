"""Each parameter starts from a buffer of its own."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import layers

from edgefl.errors import UnsupportedModelError
from edgefl_converters.building.building import build
from edgefl_converters.flatbuffer.file import FlatModel
from edgefl_converters.flatbuffer.pass_context import PassContext
from edgefl_converters.flatbuffer.passes.own_buffers import give_own_buffers


def mlp():
    keras.utils.set_random_seed(6)
    model = keras.Sequential([keras.Input((64,)), layers.Dense(256, "relu"), layers.Dense(256), layers.Dense(2)])
    model.compile("adam", "mse")
    return model


def test_parameters_with_equal_values_still_have_a_buffer_each():
    built = build(mlp(), batch_size=4)
    biases = [each for each in built.manifest.parameters if each.name.endswith("bias")]

    assert len({each.buffer for each in biases}) == len(biases) == 3


def test_a_parameter_that_the_file_does_not_initialise_is_named():
    context = PassContext(FlatModel(build(mlp(), batch_size=4).data), "all", {"elsewhere": np.zeros(3)})

    with pytest.raises(UnsupportedModelError, match="does not initialise the variables elsewhere"):
        give_own_buffers(context)
