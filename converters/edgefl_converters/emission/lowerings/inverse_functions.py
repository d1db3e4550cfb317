"""Hyperbolic functions, the inverses of circular and hyperbolic ones, and the derivative of the logarithmic gamma.

Written as W. Kahan ("Branch cuts for complex elementary functions", 1987) has them, so that nothing cancels near 0; the
derivative of lgamma is its asymptotic series behind a few steps of the recurrence (Abramowitz and Stegun, 6.3.5 and
6.3.18).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf

from edgefl_converters.emission.registry import Context, lowering

_NEAR_ZERO = 0.5
_SINH = tuple(1 / math.factorial(2 * n + 1) for n in range(6))
"""Maclaurin series of sinh(x) / x in powers of x squared."""
_STEPS = 6
_DIGAMMA = (-1 / 12, 1 / 120, -1 / 252, 1 / 240)
"""The series that log(z) - 1 / 2z misses, in powers of 1 / z²."""


def _arc_tangent(x: tf.Tensor) -> tf.Tensor:
    return tf.atan2(x, tf.ones_like(x))


def _arc_sine(x: tf.Tensor) -> tf.Tensor:
    return tf.atan2(x, tf.sqrt((1.0 - x) * (1.0 + x)))


def _arc_cosine(x: tf.Tensor) -> tf.Tensor:
    return tf.atan2(tf.sqrt((1.0 - x) * (1.0 + x)), x)


def _sinh(x: tf.Tensor) -> tf.Tensor:
    """Computed by the exponential of half of it, which overflows no sooner than the result."""
    square = x * x
    near = _SINH[-1]
    for coefficient in _SINH[-2::-1]:
        near = near * square + coefficient
    half = tf.exp(0.5 * tf.abs(x))
    far = tf.sign(x) * (0.5 * half * half - 0.5 / (half * half))
    return tf.where(tf.abs(x) < _NEAR_ZERO, x * near, far)


def _cosh(x: tf.Tensor) -> tf.Tensor:
    half = tf.exp(0.5 * tf.abs(x))
    return 0.5 * half * half + 0.5 / (half * half)


def _log_of_one_and(x: tf.Tensor) -> tf.Tensor:
    """log(1 + x): what is lost of x in the sum is made up for by a factor."""
    total = 1.0 + x
    kept = total - 1.0
    lost = tf.equal(kept, 0.0)
    factor = tf.where(lost, tf.ones_like(x), x / tf.where(lost, tf.ones_like(x), kept))
    return tf.where(lost, x, tf.math.log(total) * tf.where(tf.abs(x) < 1e30, factor, tf.ones_like(x)))


def _inverse_sinh(x: tf.Tensor) -> tf.Tensor:
    size = tf.abs(x)
    small = tf.minimum(size, 1e9)  # beyond, its square is no float32, and the root is the number itself
    found = _log_of_one_and(small + small * small / (1.0 + tf.sqrt(small * small + 1.0)))
    return tf.sign(x) * tf.where(size > 1e9, tf.math.log(tf.maximum(size, 1.0)) + math.log(2.0), found)


def _inverse_cosh(x: tf.Tensor) -> tf.Tensor:
    small = tf.minimum(x, 1e9) - 1.0
    found = _log_of_one_and(small + tf.sqrt(small * (small + 2.0)))
    return tf.where(x > 1e9, tf.math.log(tf.maximum(x, 1.0)) + math.log(2.0), found)


def _inverse_tanh(x: tf.Tensor) -> tf.Tensor:
    size = tf.abs(x)
    return 0.5 * tf.sign(x) * _log_of_one_and(2.0 * size / (1.0 - size))


def _tangent(x: tf.Tensor) -> tf.Tensor:
    return tf.sin(x) / tf.cos(x)


def _digamma(x: tf.Tensor) -> tf.Tensor:
    """The derivative of lgamma; of negative numbers by the reflection."""
    mirrored = x < 0.5
    z = tf.where(mirrored, 1.0 - x, x)
    before = tf.zeros_like(z)
    for step in range(_STEPS):
        before += 1.0 / (z + float(step))
    z += float(_STEPS)
    square = 1.0 / (z * z)
    series = _DIGAMMA[-1]
    for coefficient in _DIGAMMA[-2::-1]:
        series = series * square + coefficient
    value = tf.math.log(z) - 0.5 / z + series * square - before
    away = x - tf.round(x)  # the tangent has the period 1 there, and large arguments are inexact
    tangent = tf.where(tf.equal(away, 0.0), tf.zeros_like(x), _tangent(math.pi * away))
    return tf.where(mirrored, value - math.pi / tangent, value)


_FUNCTIONS: dict[str, Callable[[tf.Tensor], tf.Tensor]] = {
    "Acos": _arc_cosine,
    "Acosh": _inverse_cosh,
    "Asin": _arc_sine,
    "Asinh": _inverse_sinh,
    "Atan": _arc_tangent,
    "Atanh": _inverse_tanh,
    "Cosh": _cosh,
    "Digamma": _digamma,
    "Sinh": _sinh,
    "Tan": _tangent,
}


@lowering(*_FUNCTIONS)
def of_one_number(op: Any, inputs: Sequence[tf.Tensor], context: Context) -> Sequence[tf.Tensor]:
    """A function of each number by itself."""
    return [_FUNCTIONS[op.type](inputs[0])]


@lowering("ReciprocalGrad", "InvGrad")
def reciprocal_gradient(op: Any, inputs: Sequence[tf.Tensor], context: Context) -> Sequence[tf.Tensor]:
    """The gradient of 1 / x, of which the result is given."""
    result, gradient = inputs
    return [-gradient * result * result]
