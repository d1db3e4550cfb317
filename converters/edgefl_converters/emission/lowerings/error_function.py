"""The error function, which the exact gelu needs.

The complement follows Press et al., "Numerical Recipes" (1992), section 6.2: a Chebyshev fit with a relative error of
at most 1.2e-7 everywhere.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from edgefl_converters.emission.registry import Context, lowering

_FIT = (
    -1.26551223,
    1.00002368,
    0.37409196,
    0.09678418,
    -0.18628806,
    0.27886807,
    -1.13520398,
    1.48851587,
    -0.82215223,
    0.17087277,
)
# Maclaurin series of erf(x) / x in powers of x squared: near zero the complement would lose all digits.
_SERIES = tuple(2 / math.sqrt(math.pi) * (-1) ** n / (math.factorial(n) * (2 * n + 1)) for n in range(7))
_NEAR_ZERO = 0.5


@lowering("Erfc")
def erfc(op: Any, inputs: Sequence[tf.Tensor], context: Context) -> Sequence[tf.Tensor] | None:
    """1 - erf(x); kept where it is part of an exact gelu and nothing else, which the converter makes one op of."""
    return None if _makes_gelu(op) else [_complement(inputs[0])]


@lowering("Erf")
def erf(op: Any, inputs: Sequence[tf.Tensor], context: Context) -> Sequence[tf.Tensor]:
    """The series near zero, the complement elsewhere."""
    (x,) = inputs
    near = x * _polynomial(x * x, _SERIES)
    return [tf.where(tf.abs(x) < _NEAR_ZERO, near, 1.0 - _complement(x))]


def _makes_gelu(op: Any) -> bool:
    """Tells whether an Erfc is the one in ``0.5 * x * erfc(-x * sqrt(0.5))``, as `tf.nn.gelu` writes it."""
    scaled, products = op.inputs[0].op, op.outputs[0].consumers()
    if scaled.type != "Mul" or scaled.inputs[0].op.type != "Neg" or [each.type for each in products] != ["Mul"]:
        return False
    half = products[0].inputs[0].op
    return (
        _is_constant(scaled.inputs[1], math.sqrt(0.5))
        and half.type == "Mul"
        and _is_constant(half.inputs[0], 0.5)
        and half.inputs[1] is scaled.inputs[0].op.inputs[0]
        and [each.type for each in half.outputs[0].consumers()] == ["Mul"]
    )


def _is_constant(tensor: tf.Tensor, value: float) -> bool:
    found = tf.get_static_value(tensor)
    return found is not None and found.shape == () and math.isclose(found, value, rel_tol=1e-6)


def _complement(x: tf.Tensor) -> tf.Tensor:
    size = tf.abs(x)
    t = 1.0 / (1.0 + 0.5 * size)
    tail = t * tf.exp(_polynomial(t, _FIT) - size * size)
    return tf.where(x < 0.0, 2.0 - tail, tail)


def _polynomial(x: tf.Tensor, coefficients: Sequence[float]) -> tf.Tensor:
    value = coefficients[-1] * x + coefficients[-2]
    for coefficient in coefficients[-3::-1]:
        value = value * x + coefficient
    return value
