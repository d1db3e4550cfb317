"""Computes ops on large constants in a converted file, as TensorFlow's converter does with constants that it is shown.

An op is computed where its result is no larger than what it is made of. Each is one rounding of float32 numbers, so
that the result is TensorFlow's to the last bit; sums are as exact or more.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tensorflow.lite.python import schema_py_generated as schema

__all__ = ["FOLDED", "MOVES", "Fold"]

Arrays = Sequence[NDArray[Any]]
Fold = Callable[[Any, Arrays], Arrays]
"""Takes an op's options and its inputs; returns its outputs."""

_Operator = schema.BuiltinOperator

MOVES = frozenset({_Operator.EXPAND_DIMS, _Operator.RESHAPE, _Operator.SQUEEZE})
"""Ops whose result are the same bytes in another shape."""


def _each(function: Callable[..., Any]) -> Fold:
    return lambda options, inputs: [np.asarray(function(*inputs), inputs[0].dtype)]


def _reduced(function: Callable[..., Any]) -> Fold:
    def fold(options: Any, inputs: Arrays) -> Arrays:
        axes = tuple(int(axis) for axis in np.ravel(inputs[1]))
        return [np.asarray(function(inputs[0], axis=axes, keepdims=bool(options.keepDims)), inputs[0].dtype)]

    return fold


def _slice(options: Any, inputs: Arrays) -> Arrays:
    value, begins, sizes = inputs
    ends = [None if size < 0 else begin + size for begin, size in zip(begins.tolist(), sizes.tolist())]
    return [value[tuple(slice(begin, end) for begin, end in zip(begins.tolist(), ends))]]


def _strided_slice(options: Any, inputs: Arrays) -> Arrays:
    value, begins, ends, strides = inputs
    places: list[Any] = []
    for axis, (begin, end, stride) in enumerate(zip(begins.tolist(), ends.tolist(), strides.tolist())):
        bit = 1 << axis
        if options.newAxisMask & bit:
            places.append(None)
        elif options.ellipsisMask & bit:
            places.append(Ellipsis)
        elif options.shrinkAxisMask & bit:
            places.append(begin)
        else:
            places.append(
                slice(None if options.beginMask & bit else begin, None if options.endMask & bit else end, stride)
            )
    return [value[tuple(places)]]


def _split(options: Any, inputs: Arrays) -> Arrays:
    axis, value = inputs
    return np.split(value, options.numSplits, int(np.ravel(axis)[0]))


def _split_by_sizes(options: Any, inputs: Arrays) -> Arrays:
    value, sizes, axis = inputs
    along = int(np.ravel(axis)[0])
    sizes = np.where(sizes < 0, value.shape[along] - sizes[sizes >= 0].sum(), sizes)
    return np.split(value, np.cumsum(sizes)[:-1], along)


def _reverse(options: Any, inputs: Arrays) -> Arrays:
    return [np.flip(inputs[0], tuple(int(axis) for axis in np.ravel(inputs[1])))]


def _unpack(options: Any, inputs: Arrays) -> Arrays:
    return [np.moveaxis(inputs[0], options.axis, 0)[index] for index in range(options.num)]


FOLDED: dict[int, Fold] = {
    _Operator.ABS: _each(np.abs),
    _Operator.ADD: _each(np.add),
    _Operator.CONCATENATION: lambda options, inputs: [np.concatenate(inputs, options.axis)],
    _Operator.DIV: _each(np.divide),
    _Operator.MAXIMUM: _each(np.maximum),
    _Operator.MEAN: _reduced(np.mean),
    _Operator.MINIMUM: _each(np.minimum),
    _Operator.MUL: _each(np.multiply),
    _Operator.NEG: _each(np.negative),
    _Operator.PACK: lambda options, inputs: [np.stack(inputs, options.axis)],
    _Operator.REDUCE_MAX: _reduced(np.max),
    _Operator.REDUCE_MIN: _reduced(np.min),
    _Operator.REVERSE_V2: _reverse,
    _Operator.SLICE: _slice,
    _Operator.SPLIT: _split,
    _Operator.SPLIT_V: _split_by_sizes,
    _Operator.SQRT: _each(np.sqrt),
    _Operator.SQUARE: _each(np.square),
    _Operator.STRIDED_SLICE: _strided_slice,
    _Operator.SUB: _each(np.subtract),
    _Operator.SUM: _reduced(np.sum),
    _Operator.TRANSPOSE: lambda options, inputs: [np.transpose(inputs[0], inputs[1].tolist())],
    _Operator.UNPACK: _unpack,
}
"""By builtin operator, beside `MOVES`; one with a fused activation is left to the runtimes."""
