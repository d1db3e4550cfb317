"""Pooling: maximum and average, of windows, of everything, and to a size that is asked for."""

from __future__ import annotations

import keras
from keras import layers

from keras_coverage.models import regression
from keras_coverage.rows import covers

SHAPES = {1: (7, 3), 2: (7, 6, 3), 3: (5, 4, 6, 2)}


def pooled(dimensions: int, layer: keras.layers.Layer) -> keras.Model:
    """The layer behind one that needs its input gradient."""
    return regression(SHAPES[dimensions], layer, first=layers.Dense(3, "tanh"))


for kind in ("Max", "Average"):
    for d in (1, 2, 3):
        window = getattr(layers, f"{kind}Pooling{d}D")
        covers(
            window,
            {
                "valid": lambda window=window, d=d: pooled(d, window(2)),
                "same, overlapping": lambda window=window, d=d: pooled(d, window(3, strides=2, padding="same")),
                "strides 1": lambda window=window, d=d: pooled(d, window(2, strides=1)),
            },
        )
        everything = getattr(layers, f"Global{kind}Pooling{d}D")
        covers(
            everything,
            {
                "all": lambda layer=everything, d=d: pooled(d, layer()),
                "dimensions kept": lambda layer=everything, d=d: pooled(d, layer(keepdims=True)),
            },
        )
        adaptive = getattr(layers, f"Adaptive{kind}Pooling{d}D")
        covers(
            adaptive,
            {
                "2": lambda layer=adaptive, d=d: pooled(d, layer(2)),
                "3": lambda layer=adaptive, d=d: pooled(d, layer(3)),
            },
        )
