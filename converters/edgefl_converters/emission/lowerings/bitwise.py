"""Bit operations that TFLite lacks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf

from edgefl_converters.emission.registry import Context, lowering

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


@lowering("LeftShift")
def left_shift(op: Any, inputs: Sequence[tf.Tensor], context: Context) -> Sequence[tf.Tensor]:
    """A product with a power of two, cut to the width of the type."""
    values, places = (tf.cast(each, tf.int32) for each in inputs)
    bits = op.outputs[0].dtype.size * 8
    shifted = values * tf.gather(tf.constant([2**place for place in range(min(bits, 31))], tf.int32), places)
    if bits < 32:
        shifted = tf.math.floormod(shifted, 2**bits)
    return [tf.cast(shifted, op.outputs[0].dtype)]


@lowering("RightShift")
def right_shift(op: Any, inputs: Sequence[tf.Tensor], context: Context) -> Sequence[tf.Tensor] | None:
    """Shifts 8-bit numbers, which are held in 32 bits."""
    return bytes_in_words(op, inputs, tf.bitwise.right_shift)


def bytes_in_words(
    op: Any, inputs: Sequence[tf.Tensor], apply: Callable[[tf.Tensor, tf.Tensor], tf.Tensor]
) -> Sequence[tf.Tensor] | None:
    """Arithmetic of 8-bit numbers, which the runtimes lack, by that of 32-bit ones; None for other types."""
    if op.outputs[0].dtype != tf.uint8:
        return None
    wide = apply(*(tf.cast(each, tf.int32) for each in inputs))
    return [tf.cast(tf.math.floormod(wide, 256), tf.uint8)]
