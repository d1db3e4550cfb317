"""Normalization of activations and of weights."""

from __future__ import annotations

import keras
import numpy as np
from keras import layers

from keras_coverage.models import regression
from keras_coverage.rows import covers

IMAGE = (3, 4, 4)


def normalized(layer: keras.layers.Layer, shape: tuple[int, ...] = IMAGE) -> keras.Model:
    """The layer behind one that needs its input gradient."""
    return regression(shape, layer, first=layers.Dense(4, "tanh"))


def _adapted() -> layers.Layer:
    layer = layers.Normalization()
    layer.adapt(np.random.default_rng(1).normal(2.0, 3.0, (20, 5)).astype(np.float32))
    return layer


covers(
    layers.BatchNormalization,
    {
        "images": lambda: normalized(layers.BatchNormalization(momentum=0.7)),
        "vectors": lambda: normalized(layers.BatchNormalization(), (5,)),
        "without scale and centre": lambda: normalized(layers.BatchNormalization(center=False, scale=False)),
        "other axis": lambda: normalized(layers.BatchNormalization(axis=1)),
        "renormalised": lambda: normalized(layers.BatchNormalization(renorm=True)),
    },
    note="Rows are mixed, so the last batch is not padded",
)
covers(
    layers.LayerNormalization,
    {
        "last axis": lambda: normalized(layers.LayerNormalization()),
        "several axes": lambda: normalized(layers.LayerNormalization(axis=(1, 2), center=False)),
    },
)
covers(
    layers.GroupNormalization,
    {
        "two groups": lambda: normalized(layers.GroupNormalization(2)),
        "instance": lambda: normalized(layers.GroupNormalization(-1)),
    },
)
covers(layers.RMSNormalization, {"last axis": lambda: normalized(layers.RMSNormalization())})
covers(layers.UnitNormalization, {"last axis": lambda: normalized(layers.UnitNormalization())})
covers(
    layers.SpectralNormalization,
    {
        "Dense": lambda: normalized(layers.SpectralNormalization(layers.Dense(3)), (5,)),
        "Conv2D": lambda: normalized(layers.SpectralNormalization(layers.Conv2D(3, 2), power_iterations=2)),
    },
)
covers(layers.Normalization, {"adapted": lambda: regression((5,), _adapted(), layers.Dense(4, "tanh"))})
