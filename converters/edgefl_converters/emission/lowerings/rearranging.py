"""Moving elements around: blocks of space into the batch and back, and turning several axes round."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from edgefl_converters.emission.registry import Context, lowering
from edgefl_converters.emission.traced_ops import constant, folded, static_shape

_BUILTIN = ((3, 1), (4, 2))
"""Dimensions of a tensor, and of them those with blocks, that the runtimes take."""


@lowering("ReverseV2")
def reverse(op: Any, inputs: Sequence[tf.Tensor], context: Context) -> Sequence[tf.Tensor] | None:
    """One axis after the other: tflite-runtime 2.14 is silently wrong for several at once."""
    axes = np.ravel(constant(op, 1))
    if len(axes) <= 1:
        return None
    turned = inputs[0]
    for axis in axes:
        turned = tf.reverse(turned, [int(axis)])
    return [turned]


@lowering("SpaceToBatchND")
def space_to_batch(op: Any, inputs: Sequence[tf.Tensor], context: Context) -> Sequence[tf.Tensor] | None:
    """Emits what has other dimensions than the runtimes take (a dilated Conv3D, channels first), the last one first."""
    blocks, paddings = constant(op, 1), constant(op, 2)
    if (len(static_shape(inputs[0])), len(blocks)) in _BUILTIN:
        return None
    rank = len(static_shape(inputs[0]))
    around = [[0, 0], *paddings.tolist(), *[[0, 0]] * (rank - 1 - len(blocks))]
    moved = tf.pad(inputs[0], around)
    for axis in range(len(blocks), 0, -1):
        block, shape = int(blocks[axis - 1]), static_shape(moved)
        before, after = int(np.prod(shape[1:axis])), int(np.prod(shape[axis + 1 :]))
        split = tf.reshape(moved, [shape[0] * before, shape[axis] // block, block, after])
        moved = tf.reshape(
            tf.transpose(split, [2, 0, 1, 3]),
            [block * shape[0], *shape[1:axis], shape[axis] // block, *shape[axis + 1 :]],
        )
    return [moved]


@lowering("BatchToSpaceND")
def batch_to_space(op: Any, inputs: Sequence[tf.Tensor], context: Context) -> Sequence[tf.Tensor] | None:
    """The way back, the first dimension first."""
    blocks, crops = constant(op, 1), constant(op, 2)
    if (len(static_shape(inputs[0])), len(blocks)) in _BUILTIN:
        return None
    moved = inputs[0]
    for axis in range(1, len(blocks) + 1):
        block, shape = int(blocks[axis - 1]), static_shape(moved)
        before, after = int(np.prod(shape[1:axis])), int(np.prod(shape[axis + 1 :]))
        split = tf.reshape(moved, [block, shape[0] // block * before, shape[axis], after])
        moved = tf.reshape(
            tf.transpose(split, [1, 2, 0, 3]),
            [shape[0] // block, *shape[1:axis], shape[axis] * block, *shape[axis + 1 :]],
        )
    shape = static_shape(moved)
    begin = [0, *crops[:, 0].tolist(), *[0] * (len(shape) - 1 - len(blocks))]
    size = [shape[0], *(shape[1 + i] - int(crops[i].sum()) for i in range(len(blocks))), *shape[1 + len(blocks) :]]
    return [tf.slice(moved, begin, size)]


@lowering("Range")
def count(op: Any, inputs: Sequence[tf.Tensor], context: Context) -> Sequence[tf.Tensor] | None:
    """A constant where the limits follow from shapes, so that what is made of it has a known shape too."""
    value = folded(op.outputs[0])
    return None if value is None else [tf.constant(value)]


@lowering("ConcatV2")
def parts_put_together(op: Any, inputs: Sequence[tf.Tensor], context: Context) -> Sequence[tf.Tensor] | None:
    """All parts of a tensor along another axis, as a transposition and a reshape.

    The converter of TensorFlow 2.21 makes one reshape of an unpacking and the concatenation of all its parts, whichever
    axes they have; it is right only where both have the same.
    """
    *parts, _ = inputs
    source, axis = parts[0].op, constant(op, len(parts))
    if source.type != "Unpack" or [each.name for each in parts] != [each.name for each in source.outputs]:
        return None
    (packed,) = source.inputs
    if not packed.shape.is_fully_defined():
        return None
    unpacked, joined = int(source.get_attr("axis")) % packed.shape.rank, int(axis) % parts[0].shape.rank
    if unpacked == joined:
        return None
    order = [each for each in range(packed.shape.rank) if each != unpacked]
    order.insert(joined, unpacked)
    return [tf.reshape(tf.transpose(packed, order), op.outputs[0].shape)]
