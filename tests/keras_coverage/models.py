"""Small compiled models around the one layer, loss, metric or optimizer that a row is about."""

from __future__ import annotations

from typing import Any

import keras
from keras import layers

__all__ = ["regression"]


def regression(shape: tuple[int, ...], *stack: Any, dtype: str = "float32", first: Any = None) -> keras.Model:
    """Layers between an input and three numbers to predict, with plain SGD and the mean squared error.

    Args:
        shape: of one row of the input.
        stack: the layers.
        dtype: of the input.
        first: a layer before them, so that the gradient has to pass through all of the stack.
    """
    before = [] if first is None else [first]
    model = keras.Sequential([keras.Input(shape, dtype=dtype), *before, *stack, layers.Flatten(), layers.Dense(3)])
    model.compile(keras.optimizers.SGD(0.1), "mse")
    return model
