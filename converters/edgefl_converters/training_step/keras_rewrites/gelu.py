"""The exact gelu with a gradient of its own, while a model is traced.

Its derivative is the cumulative distribution of a standard normal number plus x times its density (Hendrycks and
Gimpel 2016, section 2). TensorFlow's gradient takes the distribution from the error function, which no TFLite runtime
has: it would be written out in thirty ops, and kept for the backward pass. But gelu is x times the distribution, so its
result, which is there anyway, divided by x gives it back.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import tensorflow as tf

from edgefl_converters.training_step.keras_rewrites.rewrite import Rewrite

__all__ = ["REWRITE"]

_TINY = 1e-20
"""Far below the square of any number that makes a difference; makes 0 / 0 a half, as it must be."""


def _replacement(original: Any) -> tuple[Any, ...]:
    """Lets the exact ``tf.nn.gelu`` of float32 numbers have a gradient that no error function is needed for."""

    @tf.custom_gradient  # type: ignore[untyped-decorator]
    def exact(x: tf.Tensor) -> tuple[tf.Tensor, Callable[[tf.Tensor], tf.Tensor]]:
        y = original(x, approximate=False)

        def gradient(upstream: tf.Tensor) -> tf.Tensor:
            square = x * x
            distribution = (x * y + _TINY) / (square + 2 * _TINY)
            density = tf.exp(square * -0.5 - math.log(math.sqrt(2 * math.pi)))
            return upstream * (distribution + x * density)

        return y, gradient

    def gelu(features: Any, approximate: bool = False, name: str | None = None) -> tf.Tensor:
        x = tf.convert_to_tensor(features)
        if approximate or x.dtype != tf.float32:
            return original(x, approximate, name)
        return exact(x)

    return (gelu,)


REWRITE = Rewrite(tf.nn, ("gelu",), _replacement)
