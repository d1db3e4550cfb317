"""Ops on variables, as ops on values: reading, assigning, gathering and scattering."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from edgefl_converters.emission.registry import Emitter, lowering

__all__: list[str] = []


@lowering("ReadVariableOp", as_they_are=True)
def _read_variable(op: Any, inputs: Sequence[Any], emitter: Emitter) -> Sequence[Any]:
    return [emitter.value(inputs[0].key)]


@lowering("AssignVariableOp", as_they_are=True)
def _assign_variable(op: Any, inputs: Sequence[Any], emitter: Emitter) -> Sequence[Any]:
    emitter.assign(inputs[0].key, inputs[1])
    return []


@lowering("AssignAddVariableOp", as_they_are=True)
def _assign_add(op: Any, inputs: Sequence[Any], emitter: Emitter) -> Sequence[Any]:
    emitter.assign(inputs[0].key, emitter.value(inputs[0].key) + inputs[1])
    return []


@lowering("AssignSubVariableOp", as_they_are=True)
def _assign_sub(op: Any, inputs: Sequence[Any], emitter: Emitter) -> Sequence[Any]:
    emitter.assign(inputs[0].key, emitter.value(inputs[0].key) - inputs[1])
    return []


@lowering("ResourceGather", as_they_are=True)
def _gather(op: Any, inputs: Sequence[Any], emitter: Emitter) -> Sequence[Any]:
    return [tf.gather(emitter.value(inputs[0].key), inputs[1])]


@lowering("ResourceScatterAdd", as_they_are=True)
def _scatter_add(op: Any, inputs: Sequence[Any], emitter: Emitter) -> Sequence[Any]:
    value = emitter.value(inputs[0].key)
    emitter.assign(inputs[0].key, value + _scattered(value, inputs[1], inputs[2]))
    return []


@lowering("ResourceScatterSub", as_they_are=True)
def _scatter_sub(op: Any, inputs: Sequence[Any], emitter: Emitter) -> Sequence[Any]:
    value = emitter.value(inputs[0].key)
    emitter.assign(inputs[0].key, value - _scattered(value, inputs[1], inputs[2]))
    return []


def _scattered(like: tf.Tensor, indices: tf.Tensor, rows: tf.Tensor) -> tf.Tensor:
    """Rows added up at their indices; SCATTER_ND sums duplicates on every runtime."""
    return tf.scatter_nd(indices[..., tf.newaxis], rows, like.shape)


@lowering("VariableShape", as_they_are=True)
def _shape(op: Any, inputs: Sequence[Any], emitter: Emitter) -> Sequence[Any]:
    return [tf.constant(emitter.value(inputs[0].key).shape.as_list(), op.outputs[0].dtype)]
