"""Attention."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import layers

from keras_coverage.rows import covers


def attending(attend: Callable[[Any], Any], shape: tuple[int, ...] = (5, 4)) -> keras.Model:
    """A sequence that attends to itself."""
    given = keras.Input(shape)
    hidden = layers.Dense(shape[-1], "tanh")(given)
    model = keras.Model(given, layers.Dense(2)(layers.Flatten()(attend(hidden))))
    model.compile(keras.optimizers.SGD(0.1), "mse")
    return model


def masked(attend: Callable[[Any], Any]) -> keras.Model:
    """Tokens of which some are padding, that attend to each other."""
    words = keras.Input((5,), dtype="int32")
    hidden = attend(layers.Embedding(6, 4, mask_zero=True)(words))
    model = keras.Model(words, layers.Dense(2)(layers.Flatten()(hidden)))
    model.compile(keras.optimizers.SGD(0.1), "mse")
    return model


def _multi(**settings: Any) -> layers.Layer:
    return layers.MultiHeadAttention(num_heads=2, key_dim=3, **settings)


covers(
    layers.MultiHeadAttention,
    {
        "self": lambda: attending(lambda x: _multi()(x, x)),
        "causal": lambda: attending(lambda x: _multi()(x, x, use_causal_mask=True)),
        "masked": lambda: masked(lambda x: _multi()(x, x)),
        "mask given": lambda: attending(lambda x: _multi()(x, x, attention_mask=np.tri(5, dtype=bool)[None])),
        "dropout": lambda: attending(lambda x: _multi(dropout=0.3)(x, x)),
        "two axes": lambda: attending(lambda x: _multi(attention_axes=(1, 2))(x, x), (2, 3, 4)),
    },
)
covers(
    layers.GroupQueryAttention,
    {
        "self": lambda: attending(lambda x: layers.GroupQueryAttention(3, 4, 2)(x, x)),
        "causal": lambda: attending(lambda x: layers.GroupQueryAttention(3, 4, 2)(x, x, use_causal_mask=True)),
    },
)
covers(
    layers.Attention,
    {
        "dot": lambda: attending(lambda x: layers.Attention()([x, x])),
        "scaled, concat, dropout": lambda: attending(
            lambda x: layers.Attention(use_scale=True, score_mode="concat", dropout=0.2)([x, x])
        ),
        "causal": lambda: attending(lambda x: layers.Attention(use_scale=True)([x, x], use_causal_mask=True)),
    },
)
covers(
    layers.AdditiveAttention,
    {
        "scaled": lambda: attending(lambda x: layers.AdditiveAttention()([x, x])),
        "masked": lambda: masked(lambda x: layers.AdditiveAttention(dropout=0.2)([x, x])),
    },
)
