"""Ops on variables, as ops on values: reading, assigning, gathering and scattering."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import tensorflow as tf

if TYPE_CHECKING:
    from edgefl_converters.emission.walk import Walk

__all__ = ["VARIABLE_OPS"]


def _read_variable(walk: Walk, op: Any, inputs: Sequence[Any]) -> Sequence[Any]:
    return [walk.value(inputs[0].key)]


def _assign_variable(walk: Walk, op: Any, inputs: Sequence[Any]) -> Sequence[Any]:
    walk.assign(inputs[0].key, inputs[1])
    return []


def _assign_add(walk: Walk, op: Any, inputs: Sequence[Any]) -> Sequence[Any]:
    walk.assign(inputs[0].key, walk.value(inputs[0].key) + inputs[1])
    return []


def _assign_sub(walk: Walk, op: Any, inputs: Sequence[Any]) -> Sequence[Any]:
    walk.assign(inputs[0].key, walk.value(inputs[0].key) - inputs[1])
    return []


def _gather(walk: Walk, op: Any, inputs: Sequence[Any]) -> Sequence[Any]:
    return [tf.gather(walk.value(inputs[0].key), inputs[1])]


def _scatter_add(walk: Walk, op: Any, inputs: Sequence[Any]) -> Sequence[Any]:
    value = walk.value(inputs[0].key)
    walk.assign(inputs[0].key, value + _scattered(value, inputs[1], inputs[2]))
    return []


def _scatter_sub(walk: Walk, op: Any, inputs: Sequence[Any]) -> Sequence[Any]:
    value = walk.value(inputs[0].key)
    walk.assign(inputs[0].key, value - _scattered(value, inputs[1], inputs[2]))
    return []


def _scattered(like: tf.Tensor, indices: tf.Tensor, rows: tf.Tensor) -> tf.Tensor:
    """Rows added up at their indices; SCATTER_ND sums duplicates on every runtime."""
    return tf.scatter_nd(indices[..., tf.newaxis], rows, like.shape)


def _shape(walk: Walk, op: Any, inputs: Sequence[Any]) -> Sequence[Any]:
    return [tf.constant(walk.value(inputs[0].key).shape.as_list(), op.outputs[0].dtype)]


VARIABLE_OPS: Mapping[str, Callable[[Walk, Any, Sequence[Any]], Sequence[Any]]] = {
    "AssignAddVariableOp": _assign_add,
    "AssignSubVariableOp": _assign_sub,
    "AssignVariableOp": _assign_variable,
    "ReadVariableOp": _read_variable,
    "ResourceGather": _gather,
    "ResourceScatterAdd": _scatter_add,
    "ResourceScatterSub": _scatter_sub,
    "VariableShape": _shape,
}
