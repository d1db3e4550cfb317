"""Matrix products.

Every MatMul becomes a product of rank 3. Left at rank 2, the converter fuses a following Relu into FULLY_CONNECTED
and loses it again when the weight is a variable (TF 2.21): the file then computes without the Relu, and nothing says
so. The rank 3 form is also the faster one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from edgefl_converters.emission.registry import Context, lowering
from edgefl_converters.emission.traced_ops import attribute, static_shape

__all__ = ["matmul", "scaled"]

_SMALL = 1 << 15
"""Numbers in a matrix up to which it is transposed where its transpose is wanted on the right, once for all products
with it. A larger one is not touched: the product is made the other way round. ``adj_y`` sends BATCH_MATMUL to a kernel
of tflite-runtime 2.14 that takes three times as long; on ai-edge-litert both ways cost the same up to 10 rows, and at
32 rows this one takes two thirds."""

_WORTH = 4
"""Numbers in a product for each one in its right factor from which a scalar is multiplied into the factor."""


_LONG = 8192
"""Numbers that are added up in a product from which it is one of parts, which are added up: the runtimes add one to the
other, so that here they are ten times as far off as TensorFlow; at 65,536 it is also a third faster."""

_PART = 512
"""Numbers that are added up in a part, at least."""


def matmul(left: tf.Tensor, right: tf.Tensor, *, transpose_left: bool = False) -> tf.Tensor:
    """The product of two matrices.

    Args:
        left: ``[M, K]``, or ``[K, M]`` if it is to be transposed; the bigger one is faster on this side. Or several
            matrices, ``[B, M, K]``.
        right: ``[K, N]``.
        transpose_left: transpose it first.

    Returns:
        ``[M, N]``, or ``[B, M, N]``.
    """
    if transpose_left and _is_long(left):
        return _in_stages(left, right)
    several = left.shape.rank == 3
    product = tf.raw_ops.BatchMatMulV2(
        x=left if several else tf.expand_dims(left, 0), y=tf.expand_dims(right, 0), adj_x=transpose_left
    )
    return product if several else tf.reshape(product, static_shape(product)[1:])


def _is_long(left: tf.Tensor) -> bool:
    return bool(left.shape.rank == 2 and left.shape.is_fully_defined() and left.shape[0] >= _LONG)


def _in_stages(left: tf.Tensor, right: tf.Tensor) -> tf.Tensor:
    """The product ``[K, M]^T [K, N]`` of a long K, as the gradient of a filter is one, as a sum of products."""
    (length, rows), (_, columns) = static_shape(left), static_shape(right)
    # The products together are not larger than what they are made of.
    least = max(_PART, rows * columns // (rows + columns))
    parts = max((each for each in range(2, length // least + 1) if length % each == 0), default=1)
    if length // parts > 4 * least:  # hardly divisible: with zeros behind it
        parts = math.ceil(length / least)
        added = -length % parts
        left, right = (tf.pad(each, [[0, added], [0, 0]]) for each in (left, right))
    left, right = (tf.reshape(each, [parts, -1, each.shape[1]]) for each in (left, right))
    return tf.reduce_sum(tf.raw_ops.BatchMatMulV2(x=left, y=right, adj_x=True), 0)


@lowering("MatMul")
def lower_matmul(op: Any, inputs: Sequence[tf.Tensor], context: Context) -> Sequence[tf.Tensor]:
    """A product of rank 3."""
    left, right = inputs
    transpose_left, transpose_right = bool(attribute(op, "transpose_a")), bool(attribute(op, "transpose_b"))
    if _is_zero(left, right, context):
        return [tf.zeros(static_shape(op.outputs[0]))]
    if not (transpose_left or transpose_right) and _is_a_step(op.inputs[0]) and left.op.type == "Unpack":
        return [_of_each_step(left, right, context)]
    if transpose_right:
        if right.shape.num_elements() > _SMALL and not transpose_left:
            return [tf.transpose(matmul(right, tf.transpose(left)))]
        right = context.shared(("transposed", right.name), lambda: tf.transpose(inputs[1]))
    product = matmul(left, right, transpose_left=transpose_left)
    if transpose_left and not transpose_right:
        context.factors[product.name] = (left, right)
    return [product]


def _is_zero(left: tf.Tensor, right: tf.Tensor, context: Context) -> bool:
    """Tells whether a product with a large constant is known: a state that begins at zero times recurrent weights."""
    weights = context.constants.large_value(right)
    if weights is None:
        return False
    state = tf.get_static_value(left)
    return state is not None and not state.any() and bool(np.isfinite(weights).all())


def _is_a_step(traced: Any) -> bool:
    """Tells whether a tensor is a part of another along its first axis, and all parts are multiplied."""
    parts = traced.op
    return (
        parts.type == "Unpack"
        and parts.get_attr("axis") == 0
        and all(any(each.type == "MatMul" for each in part.consumers()) for part in parts.outputs)
    )


def _of_each_step(left: tf.Tensor, right: tf.Tensor, context: Context) -> tf.Tensor:
    """The product with one step of a sequence, as part of one product with all of them, which is made once."""
    steps = left.op.inputs[0]

    def make() -> Sequence[tf.Tensor]:
        count, rows, columns = static_shape(steps)
        product = tf.reshape(matmul(tf.reshape(steps, [count * rows, columns]), right), [count, rows, -1])
        taken_apart: Sequence[tf.Tensor] = tf.unstack(product)
        return taken_apart

    products: Sequence[tf.Tensor] = context.shared(("of each step", steps.name, right.name), make)
    return products[left.value_index]


def scaled(op: Any, inputs: Sequence[tf.Tensor], context: Context) -> tf.Tensor | None:
    """A scalar times a product that nothing else needs, as the product with a scaled factor; None for any other.

    So the learning rate is multiplied into the gradient of a layer's output, not into that of its weights.
    """
    for place, number in ((0, 1), (1, 0)):
        factors = context.factors.get(inputs[place].name)
        if factors is None or inputs[number].shape.rank != 0 or len(op.inputs[place].consumers()) > 1:
            continue
        left, right = factors
        if inputs[place].shape.num_elements() >= _WORTH * right.shape.num_elements():
            return matmul(left, right * inputs[number], transpose_left=True)
    return None
