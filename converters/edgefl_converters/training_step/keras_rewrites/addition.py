"""Keras adds wrongly where the batch is static and as long as the rows: repaired while a model is traced.

Keras's ``add`` on TensorFlow turns into ``bias_add`` if the second operand has one dimension above 1 and its size is
that of the first one's channels. A column of shape ``[4, 1]`` beside ``[4, 4]`` looks like that, and is added as if it
were a row (Keras 3.15; with a dynamic batch, as in ``fit``, the case does not arise).
"""

from __future__ import annotations

from typing import Any

import tensorflow as tf
from keras.src.backend.tensorflow import numpy as keras_numpy

from edgefl_converters.training_step.keras_rewrites.rewrite import Rewrite

__all__ = ["REWRITE"]


def _replacement(original: Any) -> tuple[Any, ...]:
    """Lets Keras add operands that do not end in their one long dimension by the rules of broadcasting."""

    def add(x1: Any, x2: Any) -> Any:
        shape = getattr(x2, "shape", None)
        if shape is not None and len(shape) > 1 and shape[-1] == 1:
            # A sum with a scalar has Keras's promoted type and never becomes a bias.
            promoted = original(tf.zeros((), x1.dtype) if hasattr(x1, "dtype") else x1, tf.zeros((), x2.dtype)).dtype
            return tf.add(tf.cast(x1, promoted), tf.cast(x2, promoted))
        return original(x1, x2)

    return (add,)


REWRITE = Rewrite(keras_numpy, ("add",), _replacement)
