"""Bit operations that TFLite lacks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from edgefl_converters.lowerings.registry import Context, lowering

_SIGN = -(2**31)


@lowering("BitwiseAnd")
def bitwise_and(op: Any, inputs: Sequence[tf.Tensor], context: Context) -> Sequence[tf.Tensor] | None:
    """The sign bit of an int32 alone, with which Keras's argmax tells -0.0 from 0.0."""
    for position in (0, 1):
        mask = tf.get_static_value(op.inputs[position])
        value = inputs[1 - position]
        if mask is not None and mask.size == 1 and mask.item() == _SIGN and value.dtype == tf.int32:
            return [tf.where(value < 0, tf.constant(_SIGN), tf.constant(0))]
    return None
