"""Many matrices times one, as Keras makes the projections of attention: one product over all rows of the batch.

Left as it is, the gradient of the one is a product for each row of the batch, and their sum.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from edgefl_converters.emission.lowerings.matmul import matmul
from edgefl_converters.emission.registry import Context, lowering
from edgefl_converters.emission.traced_ops import attribute, constant, static_shape

__all__ = ["summed_product"]


@lowering("BatchMatMulV2")
def batch_matmul(op: Any, inputs: Sequence[tf.Tensor], context: Context) -> Sequence[tf.Tensor] | None:
    """The rows of all matrices on the left times the one on the right."""
    left, right = inputs
    if attribute(op, "adj_x") or left.dtype != tf.float32 or right.shape.rank != 2 or left.shape.rank < 3:
        return None
    if attribute(op, "adj_y"):
        right = context.shared(("transposed", right.name), lambda: tf.transpose(inputs[1]))
    product = matmul(tf.reshape(left, [-1, static_shape(left)[-1]]), right)
    return [tf.reshape(product, static_shape(op.outputs[0]))]


def summed_product(op: Any, inputs: Sequence[tf.Tensor]) -> tf.Tensor | None:
    """The sum over a batch of products ``left^T right`` as one product; None for any other sum."""
    product, made = op.inputs[0].op, inputs[0].op
    if made.type != "BatchMatMulV2" or product.type != made.type or inputs[0].dtype != tf.float32:
        return None
    left, right = made.inputs
    batch = static_shape(left)[:-2]
    axes = sorted(int(axis) % inputs[0].shape.rank for axis in constant(op, 1).ravel())
    transposed = attribute(product, "adj_x") and not attribute(product, "adj_y")
    if not transposed or static_shape(right)[:-2] != batch or axes != list(range(len(batch))):
        return None
    left, right = (tf.reshape(each, [-1, static_shape(each)[-1]]) for each in (left, right))
    return tf.reshape(matmul(left, right, transpose_left=True), static_shape(op.outputs[0]))
