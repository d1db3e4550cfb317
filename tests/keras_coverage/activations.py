"""Activations, between two layers that learn."""

from __future__ import annotations

import keras
from keras import layers

from keras_coverage.models import regression
from keras_coverage.public import public
from keras_coverage.rows import covers


def activated(function: object) -> keras.Model:
    """The function between two layers that learn."""
    return regression((5,), _layer(function), first=layers.Dense(6))


def all_activations() -> keras.Model:
    """All of them beside each other, each behind a layer of its own that learns through it."""
    x = keras.Input((5,))
    activated = [_layer(function)(layers.Dense(6)(x)) for function in public("activations")]
    model = keras.Model(x, layers.Dense(3)(layers.Concatenate()(activated)))
    model.compile(keras.optimizers.SGD(0.01), "mse")
    return model


def _layer(function: object) -> layers.Layer:
    own = {keras.activations.glu: _Gated, keras.activations.threshold: _Thresholded}
    return own[function]() if function in own else layers.Activation(function)


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
