"""Layers that prepare data; those that look up text need strings, which no TFLite runtime trains on."""

from __future__ import annotations

import keras
import numpy as np
from keras import layers

from keras_coverage.models import regression
from keras_coverage.rows import covers, refuses

STRINGS = "Text is looked up in tables, for which there is no builtin op: do it before the model, and feed it numbers"


def prepared(layer: keras.layers.Layer, shape: tuple[int, ...], dtype: str = "float32") -> keras.Model:
    """The layer before one that learns."""
    return regression(shape, layer, layers.Flatten(), layers.Dense(4, "tanh"), dtype=dtype)


def _adapted(layer: keras.layers.Layer) -> keras.layers.Layer:
    layer.adapt(np.random.default_rng(1).normal(size=(50, 3)).astype(np.float32))
    return layer


covers(
    layers.Discretization,
    {
        "boundaries": lambda: prepared(
            layers.Discretization([-0.5, 0.0, 0.7], output_mode="one_hot", dtype="float32"), (1,)
        ),
        "adapted": lambda: prepared(_adapted(layers.Discretization(num_bins=4, dtype="float32")), (3,)),
    },
    gradient=False,
)
covers(
    layers.CategoryEncoding,
    {
        "one hot": lambda: prepared(layers.CategoryEncoding(5, output_mode="one_hot"), (1,), "int32"),
        "several": lambda: prepared(layers.CategoryEncoding(5, output_mode="multi_hot"), (3,), "int32"),
        "counts": lambda: prepared(layers.CategoryEncoding(5, output_mode="count"), (3,), "int32"),
    },
    gradient=False,
)
for lookup in (layers.Hashing, layers.HashedCrossing, layers.StringLookup, layers.TextVectorization):
    refuses(lookup, STRINGS, gradient=False)
refuses(
    layers.IntegerLookup,
    "A hash table, for which there is no builtin op: number the tokens before the model",
    gradient=False,
)
covers(
    layers.STFTSpectrogram,
    {"magnitude": lambda: prepared(layers.STFTSpectrogram(frame_length=16, frame_step=8, window=None), (40, 1))},
)
covers(
    layers.MelSpectrogram,
    {"8 bands": lambda: prepared(layers.MelSpectrogram(16, 8, num_mel_bins=4, sampling_rate=800, min_freq=10), (48,))},
)
