"""A small model with LoRA adapters in every kind of layer that Keras can adapt, enabled as Keras does it."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import layers

__all__ = ["TOKENS", "adapted", "plain", "with_values"]

TOKENS = np.random.default_rng(1).integers(0, 11, (8, 6)).astype(np.int32)


def plain() -> keras.Model:
    """Embedding, attention, EinsumDense, Conv1D and Dense; the same weights every time."""
    keras.utils.set_random_seed(3)
    tokens = keras.Input((6,), dtype="int32", name="tokens")
    x = layers.Embedding(11, 8, name="embedding")(tokens)
    x = layers.Add()([x, layers.MultiHeadAttention(2, 4, name="attention")(x, x)])
    x = layers.EinsumDense("abc,cd->abd", output_shape=(6, 8), bias_axes="d", name="einsum")(x)
    x = layers.BatchNormalization(name="normal")(x)
    x = layers.Conv1D(5, 3, activation="relu", name="conv")(x)
    x = layers.Dense(7, activation="relu", name="dense")(layers.Flatten()(x))
    model = keras.Model(tokens, layers.Dense(3, activation="softmax", name="head")(x))
    model.compile("adam", "sparse_categorical_crossentropy")
    return model


def adapted(alpha: float | None = None) -> keras.Model:
    """The same with adapters of rank 2, which alone are trained, but for the head."""
    model = plain()
    for layer in model._flatten_layers(include_self=False):
        if hasattr(layer, "enable_lora") and layer.name != "head":
            layer.enable_lora(2, lora_alpha=alpha)
    for layer in model.layers:
        if not any("lora" in variable.name for variable in layer.weights):
            layer.trainable = False
    for variable in model.weights:
        if "lora" not in variable.name:
            variable.trainable = False
    model.compile("adam", "sparse_categorical_crossentropy")
    return model


def with_values(model: keras.Model) -> tuple[keras.Model, dict[str, Any]]:
    """The model with adapters as training leaves them (B is not zero), and their values by name."""
    generator = np.random.default_rng(0)
    values = {}
    for variable in model.trainable_variables:
        value = generator.normal(size=variable.shape).astype(np.float32) / 3
        variable.assign(value)
        values[variable.path] = value
    return model, values
