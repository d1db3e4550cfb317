"""Compiled Keras models and clients for the tests of `edgefl.learning`, and rounds that Keras computes by hand."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import layers

from edgefl import learning
from edgefl_simulation.learning.keras_models import ReadyModels

BATCH = 8
Arrays = tuple[Any, Any]


def rows(count: int, seed: int) -> Arrays:
    random = np.random.default_rng(seed)
    x = random.normal(size=(count, 6)).astype(np.float32)
    return x, np.argmax(x[:, :3] + 0.3 * random.normal(size=(count, 3)), axis=1).astype(np.int32)


def dataset(count: int, seed: int) -> Any:
    return tf.data.Dataset.from_tensor_slices(rows(count, seed))


def plain(optimizer: Any = None) -> keras.Model:
    keras.utils.set_random_seed(1)
    model = keras.Sequential([keras.Input((6,)), layers.Dense(5, "tanh"), layers.Dense(3, "softmax")])
    optimizer = optimizer or keras.optimizers.SGD(0.2, momentum=0.9)
    model.compile(optimizer, "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def rich() -> keras.Model:
    """Frozen weights between trained ones, moving averages, and random numbers."""
    keras.utils.set_random_seed(2)
    model = keras.Sequential(
        [
            keras.Input((6,)),
            layers.Dense(6, "tanh"),
            layers.Dense(5, trainable=False),
            layers.BatchNormalization(),
            layers.Dropout(0.3),
            layers.Dense(3, "softmax"),
        ]
    )
    model.compile(keras.optimizers.SGD(0.2), "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def model_fn_of(make: Callable[[], Any]) -> Callable[[], Any]:
    return lambda: learning.from_compiled_keras_model(make(), rows(BATCH, 0))


@functools.cache
def trainer(make: Callable[[], Any] = plain) -> Any:
    """A process with nothing but defaults; made once for all tests."""
    return learning.build_federated_averaging_process(model_fn_of(make))


@functools.cache
def ready(make: Callable[[], Any] = plain) -> ReadyModels:
    return ReadyModels(model_fn_of(make)())


def same(one: Any, other: Any) -> bool:
    """Whether two states have the same bits."""
    return one.to_bytes() == other.to_bytes()


def by_hand(model: Any, weights: list[Any], batches: Any) -> tuple[list[Any], int, float]:
    """Keras's weights after training on batches, how many rows these have, and the sum of their losses before."""
    model.set_weights(weights)
    model.optimizer.build(model.trainable_variables)
    for variable in model.optimizer.variables:
        if "learning_rate" not in variable.path:
            variable.assign(np.zeros(variable.shape, variable.dtype))
    seen, losses = 0, 0.0
    for x, y in batches:
        losses += len(x) * float(model.evaluate(x, y, verbose=0, return_dict=True)["loss"])
        model.train_on_batch(x, y)
        seen += len(x)
    return model.get_weights(), seen, losses
