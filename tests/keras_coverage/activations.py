"""Activations, between two layers that learn."""

from __future__ import annotations

import keras
from keras import layers

from keras_coverage.models import regression
from keras_coverage.public import public
from keras_coverage.rows import covers


def activated(function: object) -> keras.Model:
    """The function between two layers that learn."""
    own = {keras.activations.glu: _Gated, keras.activations.threshold: _Thresholded}
    layer = own[function]() if function in own else layers.Activation(function)
    return regression((5,), layer, first=layers.Dense(6))


class _Thresholded(layers.Layer):
    """The one activation that needs arguments."""

    def call(self, x: object) -> object:
        return keras.activations.threshold(x, 0.1, -0.2)


class _Gated(layers.Layer):
    """Keras's Activation says that every activation keeps the shape, which glu does not."""

    def call(self, x: object) -> object:
        return keras.activations.glu(x)


for _function in public("activations"):
    covers(_function, {"values and gradient": lambda function=_function: activated(function)})
