"""Normalisation over a batch with a gradient of its own, while a model is traced.

TensorFlow derives 23 ops from Keras's formula, of which each takes memory in a delegate, however small it is. Written
by hand (Ioffe and Szegedy 2015, "Batch normalization", section 3) they are 11, and what is kept for them is the centred
input, from which the output is made too: with MobileNetV2 in full a fifth of all ops goes.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import tensorflow as tf
from keras.src.backend.tensorflow import nn as keras_nn

from edgefl_converters.training_step.keras_rewrites.rewrite import Rewrite

__all__ = ["REWRITE"]


class _Moments(NamedTuple):
    """Holds what is known of a tensor over all its axes but the last."""

    of: tf.Tensor
    mean: tf.Tensor
    variance: tf.Tensor
    centred: tf.Tensor


def _replacement(original_moments: Any, original_normalisation: Any) -> tuple[Any, ...]:
    """Lets Keras normalise a tensor by its own moments over all axes but the last in one piece."""
    known: list[_Moments] = []

    def moments(x: Any, axes: Any, keepdims: bool = False, synchronized: bool = False) -> Any:
        if keepdims or synchronized or x.dtype != tf.float32 or list(axes) != list(range(len(x.shape) - 1)):
            return original_moments(x, axes, keepdims, synchronized)
        mean = tf.reduce_mean(x, axes)
        centred = x - tf.stop_gradient(mean)
        known.append(_Moments(x, mean, tf.reduce_mean(tf.square(centred), axes), centred))
        return mean, known[-1].variance

    def batch_normalization(
        x: Any, mean: Any, variance: Any, axis: int, offset: Any = None, scale: Any = None, epsilon: float = 1e-3
    ) -> Any:
        for each in known:
            if each.of is x and each.mean is mean and each.variance is variance:
                return _normalised(each, offset, scale, epsilon)
        return original_normalisation(x, mean, variance, axis, offset, scale, epsilon)

    return moments, batch_normalization


REWRITE = Rewrite(keras_nn, ("moments", "batch_normalization"), _replacement)


def _normalised(moments: _Moments, offset: tf.Tensor | None, scale: tf.Tensor | None, epsilon: float) -> tf.Tensor:
    """The derivative for the input includes that through its moments."""
    centred, axes = moments.centred, list(range(len(moments.of.shape) - 1))
    share = -1.0 / math.prod(moments.of.shape[:-1])
    root = tf.math.rsqrt(moments.variance + epsilon)
    given = [each for each in (offset, scale) if each is not None]

    def normalise(x: tf.Tensor, *_: tf.Tensor) -> Any:
        factor = root if scale is None else root * scale
        output = centred * factor

        def gradient(upstream: tf.Tensor) -> Any:
            of_offset = tf.reduce_sum(upstream, axes)
            of_scale = tf.reduce_sum(upstream * centred, axes) * root
            of_input = (centred * (of_scale * root * share) + upstream + of_offset * share) * factor
            found = {id(offset): of_offset, id(scale): of_scale}
            return [of_input, *(found[id(each)] for each in given)]

        return (output if offset is None else output + offset), gradient

    return tf.custom_gradient(normalise)(moments.of, *given)
