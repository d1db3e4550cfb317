"""Matrix products.

Every MatMul becomes a product of rank 3. Left at rank 2, the converter fuses a following Relu into FULLY_CONNECTED
and loses it again when the weight is a variable (TF 2.21): the file then computes without the Relu, and nothing says
so. The rank 3 form is also the faster one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from edgefl_converters.lowerings.registry import Context, attribute, lowering, static_shape

__all__ = ["matmul"]

_TALL = 2
"""Rows on the left per column on the right from which the right side is transposed first: tflite-runtime 2.14 then
takes a quarter less time, ai-edge-litert no more, and the transpose is cheap."""


def matmul(
    left: tf.Tensor, right: tf.Tensor, *, transpose_left: bool = False, transpose_right: bool = False
) -> tf.Tensor:
    """The product of two matrices; the bigger one is faster on the left.

    Args:
        left: ``[M, K]``, or ``[K, M]`` if it is to be transposed.
        right: ``[K, N]``, or ``[N, K]`` if it is to be transposed.
        transpose_left: transpose it first.
        transpose_right: transpose it first.

    Returns:
        ``[M, N]``.
    """
    rows, columns = static_shape(left)[int(transpose_left)], static_shape(right)[int(not transpose_right)]
    if rows >= _TALL * columns and not transpose_left and not transpose_right:
        right, transpose_right = tf.transpose(right), True
    product = tf.raw_ops.BatchMatMulV2(
        x=tf.expand_dims(left, 0), y=tf.expand_dims(right, 0), adj_x=transpose_left, adj_y=transpose_right
    )
    return tf.reshape(product, [rows, columns])


@lowering("MatMul")
def lower_matmul(op: Any, inputs: Sequence[tf.Tensor], context: Context) -> Sequence[tf.Tensor]:
    """A product of rank 3."""
    left, right = inputs
    transposed = bool(attribute(op, "transpose_a")), bool(attribute(op, "transpose_b"))
    product = matmul(left, right, transpose_left=transposed[0], transpose_right=transposed[1])
    if transposed == (True, False):
        context.factors[product.name] = (left, right)
    return [product]
