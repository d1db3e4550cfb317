"""Diagonals of matrices, products along an axis, Euclidean norms and cross products, of ops that every runtime has."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from edgefl_converters.emission.registry import Context, lowering
from edgefl_converters.emission.traced_ops import attribute, constant, folded, static_shape


@lowering("MatrixDiagPartV3", "MatrixDiagPartV2", "MatrixDiagPart")
def diagonal_of(op: Any, inputs: Sequence[tf.Tensor], context: Context) -> Sequence[tf.Tensor] | None:
    """The main diagonal, picked by its places; others stay as they are."""
    if not _is_main(op):
        return None
    *outer, height, width = static_shape(op.inputs[0])
    size = min(height, width)
    flat = tf.reshape(inputs[0], [*outer, height * width])
    return [tf.gather(flat, np.arange(size, dtype=np.int32) * (width + 1), axis=len(outer))]


@lowering("MatrixDiagV3", "MatrixDiagV2", "MatrixDiag")
def matrix_of_diagonal(op: Any, inputs: Sequence[tf.Tensor], context: Context) -> Sequence[tf.Tensor] | None:
    """Numbers on the main diagonal of a square matrix of zeros; others stay as they are."""
    *outer, size = static_shape(op.inputs[0])
    if not _is_main(op) or static_shape(op.outputs[0]) != (*outer, size, size):
        return None
    if len(op.inputs) > 4 and np.any(folded(op.inputs[4]) != 0):
        return None
    # Each number and as many zeros as lie before the next one, less what goes beyond the last row.
    padded = tf.pad(inputs[0][..., tf.newaxis], [[0, 0]] * (len(outer) + 1) + [[0, size]])
    flat = tf.reshape(padded, [*outer, size * (size + 1)])
    return [tf.reshape(flat[..., : size * size], [*outer, size, size])]


def _is_main(op: Any) -> bool:
    return len(op.inputs) == 1 or not np.any(constant(op, 1))


@lowering("Cumprod")
def cumulative_product(op: Any, inputs: Sequence[tf.Tensor], context: Context) -> Sequence[tf.Tensor]:
    """Products of 2, 4, 8 … neighbours (Hillis and Steele 1986, "Data parallel algorithms")."""
    shape, values = static_shape(op.inputs[0]), inputs[0]
    axis = int(constant(op, 1)) % len(shape)
    if attribute(op, "reverse"):
        values = tf.reverse(values, [axis])
    if attribute(op, "exclusive"):
        values = _shifted(values, axis, 1)
    step = 1
    while step < shape[axis]:
        values *= _shifted(values, axis, step)
        step *= 2
    return [tf.reverse(values, [axis]) if attribute(op, "reverse") else values]


def _shifted(values: tf.Tensor, axis: int, by: int) -> tf.Tensor:
    """Moves values along an axis, with ones behind them."""
    shape = values.shape.as_list()
    by = min(by, shape[axis])
    first = tf.ones([by if index == axis else size for index, size in enumerate(shape)], values.dtype)
    kept = tf.slice(
        values, [0] * len(shape), [size - by if index == axis else size for index, size in enumerate(shape)]
    )
    return tf.concat([first, kept], axis)


@lowering("EuclideanNorm")
def euclidean_norm(op: Any, inputs: Sequence[tf.Tensor], context: Context) -> Sequence[tf.Tensor]:
    """The root of the sum of squares."""
    axes = np.atleast_1d(constant(op, 1)).tolist()
    return [tf.sqrt(tf.reduce_sum(inputs[0] * inputs[0], axes, keepdims=bool(attribute(op, "keep_dims"))))]


@lowering("Cross")
def cross_product(op: Any, inputs: Sequence[tf.Tensor], context: Context) -> Sequence[tf.Tensor]:
    """The cross product of vectors of three numbers."""
    axis = len(static_shape(op.inputs[0])) - 1

    def turned(vector: tf.Tensor, order: Sequence[int]) -> tf.Tensor:
        return tf.gather(vector, np.array(order, np.int32), axis=axis)

    one, other = inputs
    there = turned(one, (1, 2, 0)) * turned(other, (2, 0, 1))
    return [there - turned(one, (2, 0, 1)) * turned(other, (1, 2, 0))]
