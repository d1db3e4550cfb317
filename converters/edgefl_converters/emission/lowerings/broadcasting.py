"""Elementwise ops on values that TensorFlow tiles first: a mean's gradient repeats a number over what was averaged.

A tiled value is kept beside its untiled original. Where the other operand has the full shape the untiled one serves as
well, by broadcasting, and the tiled one is dead code that the converter drops. Batch normalisation has several such at
every layer.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf

from edgefl_converters.emission.lowerings.bitwise import bytes_in_words
from edgefl_converters.emission.lowerings.matmul import matmul, scaled
from edgefl_converters.emission.registry import Context, lowering

_HIGHEST_RANK = 4
"""More dimensions than this broadcast slowly or not at all."""

_OPERATIONS: dict[str, Callable[[tf.Tensor, tf.Tensor], tf.Tensor]] = {
    "AddV2": tf.add,
    "Mul": tf.multiply,
    "RealDiv": tf.divide,
    "Sub": tf.subtract,
}


@lowering("Tile")
def tile(op: Any, inputs: Sequence[tf.Tensor], context: Context) -> Sequence[tf.Tensor] | None:
    """Remembers what is tiled, where every repeated dimension has one element."""
    times = tf.get_static_value(op.inputs[1])
    if times is None or inputs[0].dtype != tf.float32:
        return None
    tiled = tf.tile(inputs[0], inputs[1])
    sizes = inputs[0].shape.as_list()
    if len(sizes) <= _HIGHEST_RANK and all(count == 1 or size == 1 for count, size in zip(times, sizes)):
        context.untiled[tiled.name] = inputs[0]
    return [tiled]


@lowering(*_OPERATIONS)
def elementwise(op: Any, inputs: Sequence[tf.Tensor], context: Context) -> Sequence[tf.Tensor] | None:
    """Uses the untiled original of a tiled operand; of a tiled operand and a scalar the result is untiled again."""
    left, right = inputs
    if left.dtype == tf.uint8:
        return bytes_in_words(op, inputs, _OPERATIONS[op.type])
    product = scaled(op, inputs, context) if op.type == "Mul" else None
    if product is not None:
        return [product]
    untiled_left, untiled_right = context.untiled.get(left.name), context.untiled.get(right.name)
    if untiled_left is None and untiled_right is None:
        return None
    apply = _OPERATIONS[op.type]
    full = op.outputs[0].shape
    if untiled_left is not None and untiled_right is None and right.shape == full:
        return [apply(untiled_left, right)]
    if untiled_right is not None and untiled_left is None and left.shape == full:
        return [apply(left, untiled_right)]
    result = apply(left, right)
    if (untiled_left is None and left.shape.rank == 0) or (untiled_right is None and right.shape.rank == 0):
        context.untiled[result.name] = apply(
            left if untiled_left is None else untiled_left, right if untiled_right is None else untiled_right
        )
    return [result]


@lowering("AddN")
def add_n(op: Any, inputs: Sequence[tf.Tensor], context: Context) -> Sequence[tf.Tensor] | None:
    """A chain of sums, which the runtimes delegate; full operands first, then tiled ones.

    A layer that is used several times, as a recurrent one at each step, has such a sum as its weights' gradient: of
    products ``A^T B``, which are one product of all A and all B one below the other.
    """
    factors = [context.factors[each.name] for each in inputs if each.name in context.factors]
    if len(factors) == len(inputs) > 1:
        left, right = (tf.concat(each, axis=0) for each in zip(*factors))
        return [matmul(left, right, transpose_left=True)]
    full = [each for each in inputs if each.name not in context.untiled]
    if not full or inputs[0].dtype != tf.float32:
        return None
    total = full[0]
    for each in full[1:]:
        total = total + each
    for each in inputs:
        if each.name in context.untiled:
            total = total + context.untiled[each.name]
    return [total]
