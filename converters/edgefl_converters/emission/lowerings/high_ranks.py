"""Tensors of more dimensions than the runtimes take, as attention over several axes makes them."""

from __future__ import annotations

import math
import string
from collections.abc import Sequence
from typing import Any

import tensorflow as tf
from tensorflow.python.framework import ops

from edgefl_converters.emission.registry import Context, lowering, lowering_where
from edgefl_converters.emission.traced_ops import attribute, constant, static_shape

_MOST = 6
"""Dimensions up to which XNNPACK takes a tensor at all; it does not say no to others, but fails."""

_ELEMENTWISE = frozenset(
    {
        *("Abs", "AddV2", "Cast", "Equal", "Exp", "Greater", "GreaterEqual", "Less", "LessEqual", "Log", "LogicalAnd"),
        *("LogicalNot", "LogicalOr", "Maximum", "Minimum", "Mul", "Neg", "NotEqual", "Pow", "RealDiv", "Reciprocal"),
        *("Rsqrt", "SelectV2", "Sigmoid", "Sqrt", "Square", "SquaredDifference", "Sub", "Tanh"),
    }
)


def _has_many(op: Any) -> bool:
    return op.type in _ELEMENTWISE and (op.outputs[0].shape.rank or 0) > _MOST


@lowering_where(_has_many)
def elementwise(op: Any, inputs: Sequence[tf.Tensor], context: Context) -> Sequence[tf.Tensor]:
    """Axes that lie side by side and are repeated alike are one."""
    shape = static_shape(op.outputs[0])
    given = [(1,) * (len(shape) - len(static_shape(each))) + static_shape(each) for each in inputs]
    merged: list[list[int]] = []
    last: tuple[bool, ...] | None = None
    for size, *own in zip(shape, *given):
        kind = tuple(each == size for each in own)
        if size == 1:
            continue
        if kind == last:
            merged[-1] = [each * more for each, more in zip(merged[-1], own)]
        else:
            merged.append(list(own))
        last = kind
    flat = [tf.reshape(each, [row[index] for row in merged]) for index, each in enumerate(inputs)]
    attributes = {name: each for name, each in op.node_def.attr.items() if not name.startswith("_")}
    made = ops.get_default_graph()._create_op_internal(op.type, flat, [op.outputs[0].dtype], attrs=attributes)
    return [tf.reshape(made.outputs[0], shape)]


def _reduces_many(op: Any) -> bool:
    return op.type in ("Max", "Mean", "Min", "Prod") and (op.inputs[0].shape.rank or 0) > _MOST


@lowering_where(_reduces_many)
def reduction(op: Any, inputs: Sequence[tf.Tensor], context: Context) -> Sequence[tf.Tensor]:
    """Axes that go are moved to the end, where they are one."""
    shape = static_shape(inputs[0])
    gone = sorted(int(axis) % len(shape) for axis in constant(op, 1).ravel())
    kept = [axis for axis in range(len(shape)) if axis not in gone]
    rows = _transposed(inputs[0], [*kept, *gone])
    flat = tf.reshape(rows, [math.prod(shape[axis] for axis in kept), math.prod(shape[axis] for axis in gone)])
    reduce = {"Max": tf.reduce_max, "Mean": tf.reduce_mean, "Min": tf.reduce_min, "Prod": tf.reduce_prod}[op.type]
    return [tf.reshape(reduce(flat, axis=1), static_shape(op.outputs[0]))]


@lowering("Transpose")
def transpose(op: Any, inputs: Sequence[tf.Tensor], context: Context) -> Sequence[tf.Tensor] | None:
    """Axes that stay side by side are one, and those of size 1 none."""
    if len(static_shape(inputs[0])) <= _MOST:
        return None
    return [_transposed(inputs[0], [int(axis) for axis in constant(op, 1)])]


def _transposed(tensor: tf.Tensor, order: Sequence[int]) -> tf.Tensor:
    shape = static_shape(tensor)
    runs: list[list[int]] = []
    for axis in (axis for axis in order if shape[axis] != 1):
        between = range(runs[-1][-1] + 1, axis) if runs else ()
        if runs and axis > runs[-1][-1] and all(shape[each] == 1 for each in between):
            runs[-1].append(axis)
        else:
            runs.append([axis])
    first = sorted(range(len(runs)), key=lambda run: runs[run][0])
    merged = tf.reshape(tensor, [math.prod(shape[axis] for axis in runs[run]) for run in first])
    moved = tf.transpose(merged, [first.index(run) for run in range(len(runs))]) if len(runs) > 1 else merged
    return tf.reshape(moved, [shape[axis] for axis in order])


@lowering("Einsum")
def einsum(op: Any, inputs: Sequence[tf.Tensor], context: Context) -> Sequence[tf.Tensor] | None:
    """A product of two matrices for all that both have and that stays.

    The converter of TensorFlow 2.21 gives the gradient of some equations with an ellipsis a wrong shape.
    """
    ranks = [each.shape.rank for each in (*op.inputs, *op.outputs)]
    given, out = attribute(op, "equation").replace(" ", "").split("->")
    if len(inputs) != 2 or ("." not in given and max(ranks) <= _MOST):
        return None
    left, right, out = _spelled_out([*given.split(","), out], ranks)
    sizes = dict(zip(left + right, (*static_shape(inputs[0]), *static_shape(inputs[1]))))
    both = [each for each in out if each in left and each in right]
    summed = [each for each in left if each in right and each not in out]
    rows = [each for each in left if each in out and each not in both]
    columns = [each for each in right if each in out and each not in both]
    if len(left) != len({*both, *summed, *rows}) or len(right) != len({*both, *summed, *columns}):
        return None

    def matrix(tensor: tf.Tensor, labels: str, first: Sequence[str], last: Sequence[str]) -> tf.Tensor:
        moved = _transposed(tensor, [labels.index(each) for each in (*both, *first, *last)])
        return tf.reshape(moved, [math.prod(sizes[each] for each in group) for group in (both, first, last)])

    product = tf.matmul(matrix(inputs[0], left, rows, summed), matrix(inputs[1], right, summed, columns))
    found = [*both, *rows, *columns]
    whole = tf.reshape(product, [sizes[each] for each in found])
    return [_transposed(whole, [found.index(each) for each in out])]


def _spelled_out(parts: Sequence[str], ranks: Sequence[int]) -> list[str]:
    """Parts of an equation with a letter for each axis that an ellipsis stands for, the same ones from the right."""
    free = [each for each in string.ascii_letters if not any(each in part for part in parts)]
    spelled = []
    for part, rank in zip(parts, ranks):
        count = rank - len(part.replace("...", ""))
        spelled.append(part.replace("...", "".join(free[:count][::-1])))
    return spelled
