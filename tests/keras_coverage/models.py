"""Small compiled models around the one layer, loss, metric or optimizer that a row is about."""

from __future__ import annotations

from typing import Any

import keras
from keras import layers

__all__ = ["regression", "tokens", "training"]


def regression(
    shape: tuple[int, ...], *stack: Any, dtype: str = "float32", first: Any = None, loss: Any = "mse"
) -> keras.Model:
    """Layers between an input and three numbers to predict, with plain SGD.

    Args:
        shape: of one row of the input.
        stack: the layers.
        dtype: of the input.
        first: a layer before them, which learns only if a gradient passes through all of the stack.
        loss: as Keras takes it.
    """
    before = [] if first is None else [first]
    model = keras.Sequential([keras.Input(shape, dtype=dtype), *before, *stack, layers.Flatten(), layers.Dense(3)])
    model.compile(keras.optimizers.SGD(0.1), loss)
    return model


def tokens(length: int, *stack: Any) -> keras.Model:
    """Layers between a sequence of token numbers and three numbers to predict."""
    return regression((length,), *stack, dtype="int32")


def training(output: Any, loss: Any, *, optimizer: Any = None, shape: tuple[int, ...] = (5,), **compiled: Any) -> Any:
    """A small network with an output layer of one's own, to compile as one likes.

    Args:
        output: the last layer.
        loss: as Keras takes it.
        optimizer: as Keras takes it; plain SGD if not given.
        shape: of one row of the input.
        compiled: further arguments of ``compile``.
    """
    model = keras.Sequential([keras.Input(shape), layers.Dense(4, "tanh"), output])
    model.compile(optimizer or keras.optimizers.SGD(0.1), loss, **compiled)
    return model
