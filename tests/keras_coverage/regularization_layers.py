"""Layers that disturb activations while a model trains."""

from __future__ import annotations

import keras
from keras import layers

from keras_coverage.models import regression
from keras_coverage.rows import covers


def disturbed(layer: keras.layers.Layer, shape: tuple[int, ...] = (3, 5)) -> keras.Model:
    """The layer behind one that needs its input gradient."""
    return regression(shape, layer, first=layers.Dense(4, "tanh"))


covers(
    layers.Dropout,
    {
        "0.5": lambda: disturbed(layers.Dropout(0.5)),
        "noise shape": lambda: disturbed(layers.Dropout(0.3, noise_shape=(None, 1, 4))),
    },
)
covers(layers.SpatialDropout1D, {"0.4": lambda: disturbed(layers.SpatialDropout1D(0.4))})
covers(layers.SpatialDropout2D, {"0.4": lambda: disturbed(layers.SpatialDropout2D(0.4), (3, 2, 4))})
covers(layers.SpatialDropout3D, {"0.4": lambda: disturbed(layers.SpatialDropout3D(0.4), (2, 3, 2, 4))})
covers(layers.GaussianNoise, {"0.3": lambda: disturbed(layers.GaussianNoise(0.3))})
covers(layers.GaussianDropout, {"0.3": lambda: disturbed(layers.GaussianDropout(0.3))})
covers(layers.AlphaDropout, {"0.3": lambda: disturbed(layers.AlphaDropout(0.3))})
