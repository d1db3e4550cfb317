"""A frozen PReLU with one slope for all channels."""

from __future__ import annotations

import keras
import pytest
from keras import layers

from edgefl_converters.building.building import build
from edgefl_converters.verification.agreement import check_agreement


@pytest.mark.parametrize(("row", "axes"), [((4,), [1]), ((3, 4), [1, 2])])
def test_a_slope_that_channels_share_is_the_same_on_every_runtime(row, axes):
    keras.utils.set_random_seed(1)
    slope = layers.PReLU(alpha_initializer="random_uniform", shared_axes=axes, trainable=False)
    model = keras.Sequential([keras.Input(row), layers.Dense(4, "tanh"), slope, layers.Flatten(), layers.Dense(2)])
    model.compile(keras.optimizers.SGD(0.1), "mse")
    check_agreement(model, build(model, batch_size=4).data).require()
