"""TensorFlow's random numbers replaced by the ones that a model file computes from its seed."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import tensorflow as tf

__all__ = ["hashed_random_numbers"]


@contextlib.contextmanager
def hashed_random_numbers(seed: tf.Tensor) -> Iterator[None]:
    """While a step is traced, lets its random ops compute what a model file computes.

    Args:
        seed: shape ``[1]``, int32.
    """
    yield
