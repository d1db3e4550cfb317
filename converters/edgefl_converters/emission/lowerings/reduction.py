"""Sums of products, which are products, and sums over tensors of high rank, as the gradient of tiling makes them.

XNNPACK takes six dimensions at most.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from edgefl_converters.emission.lowerings.batched_products import summed_product
from edgefl_converters.emission.registry import Context, lowering
from edgefl_converters.emission.traced_ops import constant, static_shape

_HIGHEST_RANK = 4


@lowering("Sum")
def sum_of_merged_dimensions(op: Any, inputs: Sequence[tf.Tensor], context: Context) -> Sequence[tf.Tensor] | None:
    """Merges neighbouring dimensions that are summed alike, then sums; a sum of few dimensions stays as it is."""
    product = summed_product(op, inputs)
    if product is not None:
        return [product]
    if op.inputs[0].shape.rank is None or op.inputs[0].shape.rank <= _HIGHEST_RANK:
        return None
    shape = static_shape(op.inputs[0])
    axes = {int(axis) % len(shape) for axis in constant(op, 1).ravel()}
    merged: list[list[int]] = []  # size, and whether it is summed
    for axis, size in enumerate(shape):
        summed = int(axis in axes)
        if size == 1:
            continue
        if merged and merged[-1][1] == summed:
            merged[-1][0] *= size
        else:
            merged.append([size, summed])
    value = tf.reshape(inputs[0], [size for size, _ in merged])
    for axis in reversed(range(len(merged))):  # one axis at a time, from the last, so that the others keep their place
        if merged[axis][1]:
            value = tf.reduce_sum(value, axis)
    return [tf.reshape(value, static_shape(op.outputs[0]))]
