"""The convolutional network of the FedAvg paper. The only module here that needs TensorFlow.

McMahan et al. 2017 (Communication-Efficient Learning of Deep Networks from Decentralized Data), section 3.
"""

from __future__ import annotations

from typing import Any

import keras

__all__ = ["build"]

SEED = 2017


def build() -> Any:
    """The compiled model of 1,663,370 weights, always with the same initial weights."""
    keras.utils.set_random_seed(SEED)
    layers = keras.layers
    model = keras.Sequential(
        [
            keras.Input((28, 28, 1), name="image"),
            layers.Conv2D(32, 5, padding="same", activation="relu"),
            layers.MaxPooling2D(2),
            layers.Conv2D(64, 5, padding="same", activation="relu"),
            layers.MaxPooling2D(2),
            layers.Flatten(),
            layers.Dense(512, activation="relu"),
            layers.Dense(10, activation="softmax", name="garment"),
        ],
        name="fedavg_cnn",
    )
    model.compile(optimizer=keras.optimizers.SGD(0.1), loss="sparse_categorical_crossentropy", metrics=["accuracy"])
    return model
