"""The Keras model: a small one-dimensional convolutional network. The only module here that needs TensorFlow.

It runs in the process of ``edgefl convert examples.smartwatch.model:build``; everything after that does without.
"""

from __future__ import annotations

from typing import Any

import keras

from examples.smartwatch.recordings import CHANNELS, EXERCISES, WINDOW

__all__ = ["build"]

SEED = 2017  # of the initial weights; the year of the FedAvg paper


def build() -> Any:
    """A compiled model of 14,143 weights, always with the same initial ones.

    There is no batch normalisation on purpose: its statistics would be those of one person on every device.
    """
    keras.utils.set_random_seed(SEED)
    layers = keras.layers
    model = keras.Sequential(
        [
            keras.Input((WINDOW, CHANNELS), name="motion"),
            layers.Conv1D(24, 7, padding="same", activation="relu"),
            layers.MaxPooling1D(4),
            layers.Conv1D(48, 5, padding="same", activation="relu"),
            layers.MaxPooling1D(2),
            layers.Conv1D(48, 3, padding="same", activation="relu"),
            layers.GlobalAveragePooling1D(),
            layers.Dense(len(EXERCISES), activation="softmax", name="exercise"),
        ],
        name="smartwatch",
    )
    model.compile(
        optimizer=keras.optimizers.SGD(0.05, momentum=0.9),
        loss="sparse_categorical_crossentropy",
        metrics=["accuracy"],
    )
    return model
