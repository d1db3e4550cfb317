"""Layers that draw random numbers while they are traced are refused by name."""

from __future__ import annotations

import random

import keras
import numpy as np
import pytest
from keras import layers

from edgefl.errors import UnsupportedModelError
from edgefl_converters.training_step.specification import specify
from edgefl_converters.training_step.tracing import trace


class Thrown(layers.Layer):
    """Adds what a function draws."""

    def __init__(self, draw, **settings):
        super().__init__(**settings)
        self.draw = draw

    def call(self, x):
        return x + self.draw()


def traced(layer):
    model = keras.Sequential([keras.Input((3,)), layers.Dense(3), layer, layers.Dense(2)])
    model.compile("sgd", "mse")
    return trace(specify(model, batch_size=4))


@pytest.mark.parametrize("draw", [random.random, lambda: np.random.uniform(size=3).astype("float32")])
def test_a_layer_that_draws_in_python_is_named(draw):
    with pytest.raises(UnsupportedModelError, match=r"'thrown' .Thrown. draws random numbers in Python") as caught:
        traced(Thrown(draw, name="thrown"))
    assert "keras.random" in caught.value.hint


def test_seeds_that_keras_makes_are_no_draws():
    keras.backend.clear_session()
    assert traced(Thrown(lambda: keras.random.uniform((3,)))).functions


def test_augmentation_that_chooses_operations_in_python_is_named():
    model = keras.Sequential([keras.Input((6, 5, 3)), layers.AugMix((0, 1)), layers.Flatten(), layers.Dense(2)])
    model.compile("sgd", "mse")
    specification = specify(model, batch_size=4)
    with pytest.raises(UnsupportedModelError, match="AugMix"):
        trace(specification)
