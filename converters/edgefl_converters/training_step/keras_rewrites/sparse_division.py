"""Dividing the gradient of looked-up rows, while a model is traced: only those rows are divided, in every step.

Keras looks whether a divisor is 0 or not a number anywhere, and divides all rows then, so that those that were not
looked up become not a number as well (Keras 3.15, for optimizers with ``epsilon=0``). How many rows there are depends
on values then, which no file can hold.
"""

from __future__ import annotations

from typing import Any

import tensorflow as tf
from keras.src.backend.tensorflow import numpy as keras_numpy

from edgefl_converters.training_step.keras_rewrites.rewrite import Rewrite

__all__ = ["REWRITE"]


def _replacement(original: Any) -> tuple[Any, ...]:
    """Keras's division, but of some rows by some rows."""

    def divide(x1: Any, x2: Any) -> Any:
        rank = 0 if isinstance(x2, (tf.IndexedSlices, tf.SparseTensor)) else len(getattr(x2, "shape", []))
        if isinstance(x1, tf.IndexedSlices) and rank > 0:
            quotients = original(x1.values, tf.gather(x2, x1.indices))
            return tf.IndexedSlices(quotients, x1.indices, x1.dense_shape)
        return original(x1, x2)

    return (divide,)


REWRITE = Rewrite(keras_numpy, ("divide",), _replacement)
