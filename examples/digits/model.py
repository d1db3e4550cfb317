"""A network of two dense layers for the digits of 8 × 8 pixels. The only module here that needs TensorFlow."""

from __future__ import annotations

from typing import Any

import keras

__all__ = ["build"]


def build() -> Any:
    """The compiled model, always with the same initial weights."""
    keras.utils.set_random_seed(1)
    model = keras.Sequential(
        [
            keras.Input((64,), name="pixels"),
            keras.layers.Dense(32, "relu"),
            keras.layers.Dense(10, "softmax", name="digit"),
        ],
        name="digits",
    )
    model.compile(keras.optimizers.SGD(0.1), "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model
