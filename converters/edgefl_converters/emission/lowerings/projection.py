"""Images seen through a projective transform (rotation, zoom, shear, perspective), and the equations for one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from edgefl_converters.emission.registry import Context, lowering
from edgefl_converters.emission.traced_ops import attribute, constant, static_shape


@lowering("ImageProjectiveTransformV3")
def projective_transform(op: Any, inputs: Sequence[tf.Tensor], context: Context) -> Sequence[tf.Tensor]:
    """Computes where each new pixel comes from, and gathers its neighbours there."""
    images, transforms, _, fill = inputs
    batch, height, width, channels = static_shape(images)
    rows, columns = (int(size) for size in constant(op, 2))
    a = [tf.reshape(each, [-1, 1, 1]) for each in tf.split(transforms, 8, axis=1)]
    x = tf.reshape(tf.range(columns, dtype=tf.float32), [1, 1, columns])
    y = tf.reshape(tf.range(rows, dtype=tf.float32), [1, rows, 1])
    depth = a[6] * x + a[7] * y + 1.0
    flat = tf.cast(tf.equal(depth, 0.0), tf.float32)
    mode = attribute(op, "fill_mode")
    where_x = _inside((a[0] * x + a[1] * y + a[2]) / (depth + flat), width, mode)
    where_y = _inside((a[3] * x + a[4] * y + a[5]) / (depth + flat), height, mode)

    def read(row: tf.Tensor, column: tf.Tensor) -> tf.Tensor:
        within = (row >= 0.0) & (row <= height - 1.0) & (column >= 0.0) & (column <= width - 1.0)
        valid = tf.cast(within, tf.float32) * (1.0 - flat)
        index = tf.cast((row * width + column) * valid, tf.int32) + tf.zeros([batch, rows, columns], tf.int32)
        index += tf.reshape(tf.range(batch) * height * width, [batch, 1, 1])
        seen = tf.gather(tf.reshape(images, [batch * height * width, channels]), tf.reshape(index, [-1]))
        seen = tf.reshape(seen, [batch, rows, columns, channels])
        chosen = tf.expand_dims(valid + tf.zeros([batch, rows, columns]), -1)
        return seen * chosen + fill * (1.0 - chosen)

    if attribute(op, "interpolation") == "NEAREST":
        return [read(_round(where_y), _round(where_x))]
    left, top = tf.floor(where_x), tf.floor(where_y)
    across, down = tf.expand_dims(where_x - left, -1), tf.expand_dims(where_y - top, -1)
    upper = (1.0 - across) * read(top, left) + across * read(top, left + 1.0)
    lower = (1.0 - across) * read(top + 1.0, left) + across * read(top + 1.0, left + 1.0)
    return [(1.0 - down) * upper + down * lower]


def _inside(where: tf.Tensor, length: int, mode: str) -> tf.Tensor:
    """Brings coordinates outside of ``[0, length - 1]`` back, as the fill mode says."""
    if mode == "CONSTANT":
        return where
    last = length - 1.0
    if mode == "WRAP":
        below = where + length * (_truncate(-where / max(last, 1.0)) + 1.0)
        above = where - length * _truncate(where / max(last, 1.0))
        where = tf.where(where < 0.0, below, tf.where(where > last, above, where))
    elif mode == "REFLECT":
        twice = 2.0 * length
        near = tf.where(where < -twice, twice * _truncate(-where / twice) + where, where)
        below = tf.where(near < -float(length), near + twice, -near - 1.0)
        wound = where - twice * _truncate(where / twice)
        above = tf.where(wound >= length, twice - wound - 1.0, wound)
        where = tf.where(where < 0.0, below, tf.where(where > last, above, where))
    return tf.minimum(tf.maximum(where, 0.0), last)


def _truncate(values: tf.Tensor) -> tf.Tensor:
    return tf.cast(tf.cast(values, tf.int32), tf.float32)


def _round(values: tf.Tensor) -> tf.Tensor:
    """Halves away from zero, as C rounds."""
    return tf.sign(values) * tf.floor(tf.abs(values) + 0.5)


@lowering("MatrixSolve")
def matrix_solve(op: Any, inputs: Sequence[tf.Tensor], context: Context) -> Sequence[tf.Tensor]:
    """Solves equations for several right sides."""
    return [_solved(op, *inputs)]


@lowering("MatrixInverse")
def matrix_inverse(op: Any, inputs: Sequence[tf.Tensor], context: Context) -> Sequence[tf.Tensor]:
    """Solves equations for the unit vectors."""
    *before, size, _ = static_shape(inputs[0])
    return [_solved(op, inputs[0], tf.constant(np.broadcast_to(np.eye(size, dtype=np.float32), [*before, size, size])))]


def _solved(op: Any, matrix: tf.Tensor, right: tf.Tensor) -> tf.Tensor:
    """Gauss and Jordan's elimination, with the largest element of a column as the pivot."""
    size = static_shape(matrix)[-1]
    rest = tf.reshape(tf.concat([matrix, right], axis=-1), [-1, size, size + static_shape(right)[-1]])
    if op.get_attr("adjoint"):
        raise ValueError("the adjoint matrix")
    for step in range(size):
        column = tf.abs(rest[:, step:, step])
        pivot = tf.one_hot(tf.argmax(column, axis=1, output_type=tf.int32) + step, size)[:, :, None]
        here = tf.one_hot([step], size)[:, :, None]
        chosen, present = tf.reduce_sum(rest * pivot, axis=1), rest[:, step]
        rest = rest + pivot * (present - chosen)[:, None, :] + here * (chosen - present)[:, None, :]
        row = chosen / chosen[:, step : step + 1]
        factors = rest[:, :, step : step + 1] * (1.0 - here)
        rest = rest * (1.0 - here) + here * row[:, None, :] - factors * row[:, None, :]
    return tf.reshape(rest[:, :, size:], static_shape(right))
