"""Counting: how often numbers occur, which bucket a number falls into, whether a class is among the best."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from edgefl_converters.emission.registry import Context, lowering
from edgefl_converters.emission.traced_ops import constant, folded, static_shape


@lowering("DenseBincount")
def bincount(op: Any, inputs: Sequence[tf.Tensor], context: Context) -> Sequence[tf.Tensor]:
    """A sum of one-hot rows; whether a number occurs at all if the output is binary."""
    numbers, _, weights = inputs
    found = tf.one_hot(numbers, _size(op), dtype=tf.float32)
    if static_shape(weights) != (0,) and 0 not in static_shape(weights):
        found *= tf.expand_dims(tf.cast(weights, tf.float32), -1)
    axis = len(static_shape(numbers)) - 1
    counts = tf.reduce_max(found, axis) if op.get_attr("binary_output") else tf.reduce_sum(found, axis)
    return [tf.cast(counts, op.outputs[0].dtype)]


def _size(op: Any) -> int:
    """Returns how many numbers are counted. TensorFlow would count larger ones too, and return more than wanted."""
    asked = op.inputs[1].op
    while asked.type in ("Cast", "Identity"):
        asked = asked.inputs[0].op
    if asked.type in ("Maximum", "Minimum"):
        known = [int(each) for each in map(folded, asked.inputs) if each is not None]
        if known:
            return known[0]
    return int(constant(op, 1))


@lowering("FloorDiv")
def floor_division(op: Any, inputs: Sequence[tf.Tensor], context: Context) -> Sequence[tf.Tensor] | None:
    """Steps that were counted in 64 bits are divided in 32, which the runtimes can: for 2^31 steps."""
    if inputs[0].dtype != tf.int64:
        return None
    left, right = (tf.cast(each, tf.int32) for each in inputs)
    return [tf.cast(tf.math.floordiv(left, right), tf.int64)]


@lowering("Bucketize")
def bucketize(op: Any, inputs: Sequence[tf.Tensor], context: Context) -> Sequence[tf.Tensor]:
    """The number of boundaries that a number has reached."""
    (numbers,) = inputs
    boundaries = tf.constant(op.get_attr("boundaries"), tf.float32)
    reached = tf.cast(tf.expand_dims(tf.cast(numbers, tf.float32), -1) >= boundaries, tf.float32)
    return [tf.cast(tf.reduce_sum(reached, axis=-1), tf.int32)]


@lowering("InTopKV2")
def in_top_k(op: Any, inputs: Sequence[tf.Tensor], context: Context) -> Sequence[tf.Tensor]:
    """Tells whether fewer than k classes score higher than the target."""
    scores, targets, count = inputs
    own = tf.reduce_sum(tf.one_hot(targets, static_shape(scores)[1]) * scores, axis=1, keepdims=True)
    higher = tf.reduce_sum(tf.cast(scores > own, tf.float32), axis=1)
    return [higher < tf.cast(count, tf.float32)]
