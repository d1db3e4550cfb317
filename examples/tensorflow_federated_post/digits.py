"""Handwritten digits and a model for them, in the place of what TensorFlow Federated brought for its EMNIST."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import tensorflow as tf

from edgefl_simulation import load_data as load_arrays

__all__ = ["Source", "create_simple_keras_model", "keras_dataset_from_digits", "load_data"]

_FOR_TESTS = 297


class Source:
    """Images of 8 × 8 pixels, which clients share.

    Args:
        pixels: float32 ``[rows, 8, 8]`` from 0 to 1.
        labels: int32 ``[rows]``.
        clients: how many.
    """

    def __init__(self, pixels: Any, labels: Any, clients: int = 10) -> None:
        self._pixels, self._labels = np.array_split(pixels, clients), np.array_split(labels, clients)
        self.client_ids = [f"client-{number}" for number in range(clients)]

    def create_tf_dataset_for_client(self, client_id: str) -> tf.data.Dataset:
        """A dataset of single rows, with ``pixels`` and ``label``."""
        number = self.client_ids.index(client_id)
        return tf.data.Dataset.from_tensor_slices({"pixels": self._pixels[number], "label": self._labels[number]})


def load_data() -> tuple[Source, Source]:
    """scikit-learn's 1,797 digits in their order: those to train on, and the last ones for tests."""
    arrays = load_arrays("digits").arrays
    pixels, labels = arrays["x"][..., 0], arrays["y"]
    return Source(pixels[:-_FOR_TESTS], labels[:-_FOR_TESTS]), Source(pixels[-_FOR_TESTS:], labels[-_FOR_TESTS:])


def keras_dataset_from_digits(dataset: tf.data.Dataset) -> tf.data.Dataset:
    """The rows as a Keras model takes them: ``x`` and ``y``."""
    return dataset.map(lambda row: {"x": tf.reshape(row["pixels"], [-1]), "y": tf.reshape(row["label"], [1])})


def create_simple_keras_model() -> keras.Model:
    """One layer, compiled."""
    model = keras.Sequential([keras.Input((64,)), keras.layers.Dense(10, "softmax", kernel_initializer="zeros")])
    model.compile(
        loss=keras.losses.SparseCategoricalCrossentropy(),
        optimizer=keras.optimizers.SGD(0.1),
        metrics=[keras.metrics.SparseCategoricalAccuracy()],
    )
    return model
