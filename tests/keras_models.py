"""Small compiled Keras models for the converter's tests; each has the same weights every time it is made."""

from __future__ import annotations

import functools
from typing import Any

import keras
from keras import layers

from edgefl_converters.building.building import BuiltModel, build

BATCH = 8
SEPARABLE_BATCH = 16


@functools.cache
def built(architecture: str, optimizer: str = "sgd") -> BuiltModel:
    """The file made from one of these models; made once for all tests of a process, for that takes seconds."""
    return build(globals()[architecture](optimizer), batch_size=BATCH)


def mlp(optimizer: Any = "sgd") -> keras.Model:
    """Dense, relu and softmax."""
    keras.utils.set_random_seed(1)
    stack = [keras.Input((6,)), layers.Dense(8, activation="relu"), layers.Dense(4, activation="softmax")]
    return classifier(stack, optimizer)


def nested_head() -> keras.Model:
    """A head, and within another model a layer of the same name."""
    keras.utils.set_random_seed(1)
    block = keras.Sequential([keras.Input((6,)), layers.Dense(6, activation="tanh", name="head")], name="block")
    stack = [keras.Input((6,)), block, layers.BatchNormalization(name="norm"), layers.Dense(3, name="head")]
    model = keras.Sequential(stack)
    model.compile("sgd", "mse")
    return model


def separable_network() -> keras.Model:
    """Six depthwise and pointwise convolutions, normalized and rectified: most of its memory are activations."""
    keras.utils.set_random_seed(1)
    stack = [keras.Input((48, 48, 3))]
    for stride in (2, 1, 1, 1, 1, 1):
        stack += [layers.DepthwiseConv2D(3, stride, padding="same"), layers.Conv2D(32, 1)]
        stack += [layers.BatchNormalization(), layers.ReLU(6.0)]
    model = keras.Sequential([*stack, layers.GlobalAveragePooling2D(), layers.Dense(4)])
    model.compile(keras.optimizers.SGD(0.1), "mse")
    return model


@functools.cache
def built_separable_network() -> BuiltModel:
    """The file of it, with a batch for which most of what is kept are activations; made once for all tests."""
    return build(separable_network(), batch_size=SEPARABLE_BATCH)


def cnn(optimizer: Any = "sgd") -> keras.Model:
    """Two-dimensional convolutions with stride and padding, and pooling."""
    keras.utils.set_random_seed(1)
    stack = [
        keras.Input((8, 8, 2)),
        layers.Conv2D(4, 3, activation="relu"),
        layers.MaxPooling2D(2),
        layers.Conv2D(5, 3, strides=2, padding="same", activation="tanh"),
        layers.Flatten(),
        layers.Dense(4, activation="softmax"),
    ]
    return classifier(stack, optimizer)


def conv1d(optimizer: Any = "sgd") -> keras.Model:
    """One-dimensional convolutions over time, and global pooling."""
    keras.utils.set_random_seed(1)
    stack = [
        keras.Input((16, 3)),
        layers.Conv1D(4, 5, activation="relu"),
        layers.MaxPooling1D(2),
        layers.Conv1D(5, 3, padding="causal", activation="relu"),
        layers.GlobalAveragePooling1D(),
        layers.Dense(4, activation="softmax"),
    ]
    return classifier(stack, optimizer)


def classifier(stack: list[Any], optimizer: Any = "sgd") -> keras.Model:
    """Compiles a stack of layers for four classes."""
    model = keras.Sequential(stack)
    model.compile(optimizer, "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model
