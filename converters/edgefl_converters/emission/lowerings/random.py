"""Random numbers as a function of a seed that is an input of the step, by a counter hash of int32 operations.

The runtimes' own generators cannot be checkpointed and give every device the same masks. Here element i of the random
op number s under seed k is a hash of (i, s, k): every step and device differs, a repeated step repeats exactly, and
TensorFlow computes the same bits. The hash is a multiply-xorshift finaliser (as in Steele, Lea and Flood, "Fast
splittable pseudorandom number generators", 2014), with the seed mixed in before each of its two rounds.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from edgefl.errors import UnsupportedModelError
from edgefl_converters.emission.registry import LOWERINGS, Context, lowering, lowering_where
from edgefl_converters.emission.traced_ops import static_shape
from edgefl_converters.training_step.traced_graphs import RANDOM

__all__ = ["normal", "uniform"]

_GOLDEN = 0x9E3779B1
_STREAM = 0x85EBCA77
_FIRST, _SECOND = 0x2C1B3C6D, 0x297A2D39
_SHIFT = 15


def uniform(
    shape: Sequence[int],
    stream: int,
    seed: tf.Tensor | None,
    whole: Sequence[int] | None = None,
    start: int = 0,
) -> tf.Tensor:
    """Float32 numbers in [0, 1), multiples of 2^-24.

    Args:
        shape: of the result.
        stream: number of the random op, so that no two ops draw the same numbers.
        seed: int32 ``[1]``; None stands for a constant seed, in functions that are to repeat themselves.
        whole: of what the result is a part in row-major order: a row, or rows, of a batch; None for `shape`.
        start: index in the whole of the result's first number.
    """
    seed = tf.zeros([1], tf.int32) if seed is None else seed
    first = _finalise(seed + _int32(stream * _STREAM))
    second = _finalise(first + _int32(_GOLDEN))
    # The counter is an outer sum, so that the file holds two short tables instead of a number for each element.
    _, columns = _factor(shape if whole is None else whole)
    (row, rows), (column, count) = _rectangle(start, math.prod(shape), columns)
    row = _multiples(rows, columns * _GOLDEN, row)[:, np.newaxis] + tf.reshape(first, [1, 1])
    column = tf.bitwise.bitwise_xor(_multiples(count, _GOLDEN, column), second)[np.newaxis, :]
    bits = _round(row + column, _FIRST)
    bits = _round(tf.bitwise.bitwise_xor(bits, tf.reshape(second, [1, 1])), _SECOND)
    # The shift is arithmetic: 24 bits with a sign, which the half undoes.
    number = tf.cast(tf.bitwise.right_shift(bits, _constant(8)), tf.float32) * 2.0**-24 + 0.5
    return tf.reshape(number, list(shape))


def normal(
    shape: Sequence[int],
    stream: int,
    seed: tf.Tensor | None,
    whole: Sequence[int] | None = None,
    start: int = 0,
) -> tf.Tensor:
    """Standard normal numbers (Box and Muller, 1958), float32; see `uniform` for the arguments."""
    if whole is None or tuple(whole) == tuple(shape):
        pair = uniform([2, *shape], stream, seed)
        length, angle = pair[0], pair[1]
    else:
        length = uniform(shape, stream, seed, [2, *whole], start)
        angle = uniform(shape, stream, seed, [2, *whole], math.prod(whole) + start)
    radius = tf.sqrt(-2.0 * tf.math.log(1.0 - length))
    return radius * tf.cos(2.0 * math.pi * angle)


@lowering("StatelessRandomUniformV2", "RandomUniform")
def random_uniform(op: Any, inputs: Sequence[tf.Tensor], context: Context) -> Sequence[tf.Tensor]:
    """Uniform in [0, 1)."""
    return [uniform(_shape(op), context.next_stream(), context.seed, *context.drawn(op))]


@lowering("StatelessRandomNormalV2", "RandomStandardNormal")
def randomnormal(op: Any, inputs: Sequence[tf.Tensor], context: Context) -> Sequence[tf.Tensor]:
    """Mean 0, standard deviation 1."""
    return [normal(_shape(op), context.next_stream(), context.seed, *context.drawn(op))]


@lowering("StatelessRandomUniformIntV2", "RandomUniformInt")
def random_integers(op: Any, inputs: Sequence[tf.Tensor], context: Context) -> Sequence[tf.Tensor]:
    """Uniform in [lowest, highest)."""
    lowest, highest = inputs[-2:]
    number = uniform(static_shape(op.outputs[0]), context.next_stream(), context.seed, *context.drawn(op))
    lowest, highest = tf.cast(lowest, tf.int32), tf.cast(highest, tf.int32)
    span = tf.cast(highest - lowest, tf.float32)
    drawn = lowest + tf.cast(tf.floor(number * span), tf.int32)
    return [tf.cast(drawn, op.outputs[0].dtype)]


def _cannot_be_drawn(op: Any) -> bool:
    return RANDOM.search(op.type) is not None and op.type not in LOWERINGS


@lowering_where(_cannot_be_drawn)
def drawn_otherwise(op: Any, inputs: Sequence[tf.Tensor], context: Context) -> Sequence[tf.Tensor]:
    """Refuses what would become a constant, as the state of TensorFlow's generator is none of the file."""
    raise UnsupportedModelError(
        f"{op.type} ({op.name!r}) draws random numbers as no file can: files draw uniform and normal numbers, and "
        "uniform whole ones.",
        hint="Compute them from keras.random.uniform or keras.random.normal, or leave them to the data pipeline.",
    )


@lowering("StatelessRandomGetKeyCounter")
def key_counter(op: Any, inputs: Sequence[tf.Tensor], context: Context) -> Sequence[tf.Tensor]:
    """TensorFlow's own key, which nothing uses any more."""
    return [tf.zeros(static_shape(output), output.dtype) for output in op.outputs]


def _shape(op: Any) -> tuple[int, ...]:
    if op.outputs[0].dtype != tf.float32:
        raise ValueError(f"random numbers of type {op.outputs[0].dtype.name}")
    return static_shape(op.outputs[0])


def _factor(shape: Sequence[int]) -> tuple[int, int]:
    """Splits a shape in two parts of which the sum of sizes is least."""
    splits = [(math.prod(shape[:index]), math.prod(shape[index:])) for index in range(len(shape) + 1)]
    return min(splits, key=sum)


def _rectangle(start: int, size: int, columns: int) -> tuple[tuple[int, int], tuple[int, int]]:
    """First and number of the rows, and of the columns, in which numbers lie that follow each other."""
    row, column = divmod(start, columns)
    if column == 0 and size % columns == 0:
        return (row, size // columns), (0, columns)
    if column + size > columns:
        raise ValueError(f"{size} numbers from {start} on are no rectangle in rows of {columns}")
    return (row, 1), (column, size)


def _multiples(count: int, step: int, first: int = 0) -> tf.Tensor:
    numbers = np.arange(first, first + count, dtype=np.uint64)
    return tf.constant((numbers * np.uint64(step % 2**32)).astype(np.uint32).view(np.int32))


def _finalise(value: tf.Tensor) -> tf.Tensor:
    return _round(_round(value, _FIRST), _SECOND)


def _round(value: tf.Tensor, factor: int) -> tf.Tensor:
    mixed = tf.bitwise.bitwise_xor(value, tf.bitwise.right_shift(value, _constant(_SHIFT)))
    return mixed * _int32(factor)


def _int32(value: int) -> tf.Tensor:
    return _constant((value + 2**31) % 2**32 - 2**31)


def _constant(value: int) -> tf.Tensor:
    return tf.constant(value, tf.int32)
