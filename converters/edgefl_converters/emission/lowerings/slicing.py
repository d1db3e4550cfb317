"""Shapes: reshaping to a scalar, and gradients of slices, which are put back where the slice was taken."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from edgefl_converters.emission.registry import Context, lowering
from edgefl_converters.emission.traced_ops import constant, folded, static_shape


@lowering("Reshape", "Squeeze")
def to_scalar(op: Any, inputs: Sequence[tf.Tensor], context: Context) -> Sequence[tf.Tensor] | None:
    """A scalar is taken out by a slice.

    A RESHAPE to no dimensions has an empty shape tensor, which tflite-runtime 2.14 does not recognise as a constant: it
    expects the shape to change at every step and leaves the whole subgraph to its slow kernels. What is squeezed after
    a transposition is reshaped: the converter of TensorFlow 2.21 makes one of the two, and refuses what it made.
    """
    if op.type == "Squeeze" and inputs[0].op.type == "Transpose":
        return [tf.reshape(inputs[0], _squeezed(op, static_shape(inputs[0])))]
    if op.outputs[0].shape.rank != 0 or inputs[0].shape.rank == 0:
        return None
    return [tf.reshape(inputs[0], [1])[0]]


def _squeezed(op: Any, shape: Sequence[int]) -> list[int]:
    axes = [int(axis) % len(shape) for axis in op.get_attr("squeeze_dims")]
    return [size for axis, size in enumerate(shape) if (axis not in axes if axes else size != 1)]


@lowering("Unpack")
def parts_of_what_is_found(op: Any, inputs: Sequence[tf.Tensor], context: Context) -> Sequence[tf.Tensor] | None:
    """Slices, where how many elements there are depends on values: the places of those that are not zero."""
    (packed,) = inputs
    if packed.shape.rank is None or packed.shape.is_fully_defined():
        return None
    return [tf.gather(packed, index, axis=op.get_attr("axis")) for index in range(op.get_attr("num"))]


@lowering("Slice")
def slice_of_slice(op: Any, inputs: Sequence[tf.Tensor], context: Context) -> Sequence[tf.Tensor] | None:
    """A slice of a slice is one: the gradient of padding takes its part of what a convolution's gradient cut out."""
    inner, begin = inputs[0].op, folded(op.inputs[1])
    first = folded(inner.inputs[1]) if inner.type == "Slice" else None
    if begin is None or first is None:
        return None
    return [tf.slice(inner.inputs[0], first + begin, static_shape(op.outputs[0]))]


@lowering("StridedSliceGrad")
def strided_slice_grad(op: Any, inputs: Sequence[tf.Tensor], context: Context) -> Sequence[tf.Tensor]:
    """Padding where the step is 1; elsewhere a gather from the gradient with one zero behind it."""
    shape, begin, end, strides = (np.asarray(constant(op, index)).reshape(-1) for index in range(4))
    taken = _taken(op, [int(size) for size in shape], begin, end, strides)
    gradient = tf.reshape(inputs[4], [len(indices) for indices in taken])
    padding = [[0, 0] for _ in taken]
    for axis, (size, indices) in enumerate(zip(shape, taken)):
        if len(indices) == 0:
            return [tf.zeros([int(each) for each in shape], inputs[4].dtype)]
        if list(indices) == list(range(indices[0], indices[0] + len(indices))):
            padding[axis] = [int(indices[0]), int(size) - int(indices[-1]) - 1]
        else:
            source = np.full(int(size), len(indices), np.int32)
            source[list(indices)] = np.arange(len(indices))
            behind = [[0, int(other == axis)] for other in range(len(taken))]
            gradient = tf.gather(tf.pad(gradient, behind), source, axis=axis)
    if any(pair != [0, 0] for pair in padding):
        gradient = tf.pad(gradient, padding)
    return [tf.reshape(gradient, static_shape(op.outputs[0]))]


def _taken(op: Any, shape: Sequence[int], begin: Any, end: Any, strides: Any) -> list[range]:
    """The indices that the slice takes of every axis."""
    masks = {name: int(op.get_attr(f"{name}_mask")) for name in ("begin", "end", "ellipsis", "new_axis", "shrink_axis")}
    count = len(begin)
    given = sum(1 for place in range(count) if not (masks["new_axis"] | masks["ellipsis"]) >> place & 1)
    taken: list[range] = []
    for place in range(count):
        bit = 1 << place
        if masks["ellipsis"] & bit:
            taken += [range(size) for size in shape[len(taken) : len(taken) + len(shape) - given]]
        elif not masks["new_axis"] & bit:
            size = shape[len(taken)]
            if masks["shrink_axis"] & bit:
                index = int(begin[place]) % size
                taken.append(range(index, index + 1))
            else:
                first = None if masks["begin"] & bit else int(begin[place])
                last = None if masks["end"] & bit else int(end[place])
                taken.append(range(*slice(first, last, int(strides[place])).indices(size)))
    return taken + [range(size) for size in shape[len(taken) :]]
