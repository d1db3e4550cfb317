"""Gradients by TensorFlow, as functions that can be lowered and compared with their kernels."""

from __future__ import annotations

import tensorflow as tf

__all__ = ["gradient_of"]


def gradient_of(function):
    """The gradient of a function of one tensor, as a function of that and of the gradient of what it returns."""

    def gradient(x, dy):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = function(x)
        return tape.gradient(y, x, dy)

    return gradient
