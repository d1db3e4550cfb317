"""Layers that merge several tensors, and those that change a shape."""

from __future__ import annotations

import keras
from keras import layers

from keras_coverage.models import regression
from keras_coverage.rows import covers


def merged(layer: keras.layers.Layer, shape: tuple[int, ...] = (3, 4)) -> keras.Model:
    """Two branches that the layer merges."""
    given = keras.Input(shape)
    branches = [layers.Dense(shape[-1], activation)(given) for activation in ("tanh", "sigmoid")]
    model = keras.Model(given, layers.Dense(2)(layers.Flatten()(layer(branches))))
    model.compile(keras.optimizers.SGD(0.1), "mse")
    return model


def reshaped(layer: keras.layers.Layer, shape: tuple[int, ...] = (3, 4)) -> keras.Model:
    """The layer behind one that needs its input gradient, before one that sees its shape."""
    return regression(shape, layer, layers.Dense(2, "tanh"), first=layers.Dense(4, "tanh"))


for each in (layers.Add, layers.Average, layers.Maximum, layers.Minimum, layers.Multiply, layers.Subtract):
    covers(each, {"two branches": lambda each=each: merged(each())})
covers(
    layers.Concatenate,
    {"last axis": lambda: merged(layers.Concatenate()), "first": lambda: merged(layers.Concatenate(axis=1))},
)
covers(
    layers.Dot,
    {
        "vectors": lambda: merged(layers.Dot(axes=1), (4,)),
        "matrices": lambda: merged(layers.Dot(axes=(2, 2))),
        "normalised": lambda: merged(layers.Dot(axes=1, normalize=True), (4,)),
    },
)
covers(layers.Reshape, {"(2, 6)": lambda: reshaped(layers.Reshape((2, 6)))})
covers(layers.Flatten, {"flatten": lambda: reshaped(layers.Flatten())})
covers(layers.Permute, {"(2, 1)": lambda: reshaped(layers.Permute((2, 1)))})
covers(layers.RepeatVector, {"3": lambda: reshaped(layers.RepeatVector(3), (5,))})
