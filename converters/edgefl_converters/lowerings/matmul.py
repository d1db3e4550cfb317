"""Matrix products.

Every MatMul becomes a product of rank 3. Left at rank 2, the converter fuses a following Relu into FULLY_CONNECTED and
loses it again when the weight is a variable (TF 2.21): the file then computes without the Relu, and nothing says so. The
rank 3 form is also the faster one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from edgefl_converters.lowerings.registry import Context, attribute, lowering, static_shape

__all__ = ["matmul"]


def matmul(left: tf.Tensor, right: tf.Tensor) -> tf.Tensor:
    """The product of two matrices, ``[M, K]`` by ``[K, N]``; the bigger one is faster on the left."""
    product = tf.raw_ops.BatchMatMulV2(x=tf.expand_dims(left, 0), y=tf.expand_dims(right, 0))
    return tf.reshape(product, [static_shape(left)[0], static_shape(right)[1]])


@lowering("MatMul")
def lower_matmul(op: Any, inputs: Sequence[tf.Tensor], context: Context) -> Sequence[tf.Tensor]:
    """Transposes are explicit: a product with a transposed right side falls to a slow kernel."""
    left, right = inputs
    if attribute(op, "transpose_a"):
        left = tf.transpose(left)
    if attribute(op, "transpose_b"):
        right = tf.transpose(right)
    return [matmul(left, right)]
