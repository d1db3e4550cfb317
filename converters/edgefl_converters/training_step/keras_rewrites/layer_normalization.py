"""Layer normalization with a gradient of its own, while a model is traced.

Keras multiplies the scale of each row by gamma first, which makes it as large as the input, and its gradient goes back
through mean and variance one by one. Here rows are centred and scaled first, and the gradient is that of normalization
as a whole (Ba et al. 2016; Ioffe and Szegedy 2015, section 3, for batches): nothing but the result is kept for it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import keras
import tensorflow as tf
from keras.src.ops import nn

from edgefl_converters.training_step.keras_rewrites.rewrite import Rewrite

__all__ = ["REWRITE"]


def _replacement(original: Any) -> tuple[Any, ...]:
    """Lets Keras normalize float32 numbers over any axes in fewer ops; without centring (``rms_scaling``) as ever."""

    def layer_normalization(
        x: Any,
        gamma: Any = None,
        beta: Any = None,
        axis: int | Sequence[int] = -1,
        epsilon: float | None = None,
        rms_scaling: bool = False,
    ) -> tf.Tensor:
        x = tf.convert_to_tensor(x)
        if rms_scaling or x.dtype != tf.float32:
            return original(x, gamma, beta, axis, epsilon, rms_scaling)
        axes = [each % x.shape.rank for each in ([axis] if isinstance(axis, int) else axis)]
        y = _normalized(x, axes, keras.config.epsilon() if epsilon is None else epsilon)
        shape = [size if index in axes else 1 for index, size in enumerate(x.shape)]
        if gamma is not None:
            y = y * _aligned(gamma, shape)
        return y if beta is None else y + _aligned(beta, shape)

    return (layer_normalization,)


REWRITE = Rewrite(nn, ("_layer_normalization",), _replacement)


def _normalized(x: tf.Tensor, axes: Sequence[int], epsilon: float) -> tf.Tensor:
    @tf.custom_gradient  # type: ignore[untyped-decorator]
    def normalized(x: tf.Tensor) -> tuple[tf.Tensor, Callable[[tf.Tensor], tf.Tensor]]:
        centred = x - tf.reduce_mean(x, axes, keepdims=True)
        variance = tf.reduce_mean(tf.square(centred), axes, keepdims=True)
        scale = tf.math.rsqrt(variance + epsilon)
        y = centred * scale

        def gradient(upstream: tf.Tensor) -> tf.Tensor:
            along = y * tf.reduce_mean(upstream * y, axes, keepdims=True)
            return (upstream - tf.reduce_mean(upstream, axes, keepdims=True) - along) * scale

        return y, gradient

    return normalized(x)


def _aligned(parameter: Any, shape: Sequence[int]) -> tf.Tensor:
    """A parameter over the normalized axes, so that it broadcasts over the others."""
    tensor = tf.convert_to_tensor(parameter)
    return tensor if shape[-tensor.shape.rank :] == tensor.shape.as_list() else tf.reshape(tensor, shape)
