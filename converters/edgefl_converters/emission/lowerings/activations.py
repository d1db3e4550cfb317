"""Gradients of activations that have no builtin TFLite form."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from edgefl_converters.emission.registry import Context, lowering
from edgefl_converters.emission.traced_ops import attribute

__all__ = ["positive"]

_HUGE = 3.4e38


def positive(values: tf.Tensor) -> tf.Tensor:
    """1.0 where a value that is not negative is above 0, else 0.0.

    A product that saturates, which is one op, as products can end at -1 and 1: comparisons run on the runtimes' slow
    kernels, products on vectorised ones. It is exact from 3e-39 on, below the smallest normal number.
    """
    return tf.minimum(tf.maximum(values * _HUGE, -1.0), 1.0)


@lowering("Softplus")
def softplus(op: Any, inputs: Sequence[tf.Tensor], context: Context) -> Sequence[tf.Tensor]:
    """Softplus without the exponential of a large number: log(1 + exp(x)), as the converter has it, overflows at 89."""
    (features,) = inputs
    return [tf.maximum(features, 0.0) + tf.math.log(tf.exp(-tf.abs(features)) + 1.0)]


@lowering("ReluGrad")
def relu_grad(op: Any, inputs: Sequence[tf.Tensor], context: Context) -> Sequence[tf.Tensor]:
    """The gradient passes where the input (or the output) is above 0."""
    gradient, features = inputs
    if op.inputs[1].op.type != "Relu":
        features = tf.maximum(features, 0.0)
    return [gradient * positive(features)]


@lowering("Relu6Grad")
def relu6_grad(op: Any, inputs: Sequence[tf.Tensor], context: Context) -> Sequence[tf.Tensor]:
    """The gradient passes strictly between 0 and 6."""
    gradient, features = inputs
    if op.inputs[1].op.type != "Relu6":
        features = tf.minimum(tf.maximum(features, 0.0), 6.0)
    return [gradient * positive(features * (6.0 - features))]


@lowering("LeakyReluGrad")
def leaky_relu_grad(op: Any, inputs: Sequence[tf.Tensor], context: Context) -> Sequence[tf.Tensor]:
    """The gradient is scaled by alpha where the input is not above 0."""
    gradient, features = inputs
    alpha = float(attribute(op, "alpha"))
    return [gradient * (alpha + (1.0 - alpha) * positive(tf.maximum(features, 0.0)))]


@lowering("EluGrad")
def elu_grad(op: Any, inputs: Sequence[tf.Tensor], context: Context) -> Sequence[tf.Tensor]:
    """Below 0 the derivative is output + 1."""
    gradient, outputs = inputs
    return [gradient * tf.minimum(outputs + 1.0, 1.0)]


_SELU_SCALE_ALPHA = 1.7580993408473768599402175208123
_SELU_SCALE = 1.0507009873554804934193349852946


@lowering("SeluGrad")
def selu_grad(op: Any, inputs: Sequence[tf.Tensor], context: Context) -> Sequence[tf.Tensor]:
    """Below 0 the derivative is output + scale x alpha, above it is scale (Klambauer et al., 2017)."""
    gradient, outputs = inputs
    negative = outputs + _SELU_SCALE_ALPHA
    return [gradient * tf.where(outputs < 0.0, negative, tf.fill(outputs.shape, _SELU_SCALE))]


@lowering("SoftsignGrad")
def softsign_grad(op: Any, inputs: Sequence[tf.Tensor], context: Context) -> Sequence[tf.Tensor]:
    """The derivative of x / (1 + |x|) is its denominator's square, inverted."""
    gradient, features = inputs
    return [gradient / tf.square(1.0 + tf.abs(features))]
