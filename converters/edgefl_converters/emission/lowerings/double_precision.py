"""Ops in float64, which the runtimes do not have, in float32: Keras divides whole numbers in float64 here and there.

How much is lost is seen by the verification, which computes everything in float64 beside it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from edgefl_converters.emission.registry import Emitter, lowering_where
from edgefl_converters.emission.traced_ops import folded, static_shape

_CALLING = ("Case", "If", "PartitionedCall", "StatefulPartitionedCall", "StatelessIf", "StatelessWhile", "While")
"""Ops that call functions, whose ops are emitted one by one."""


def _in_double(op: Any) -> bool:
    if op.type in _CALLING:
        return False
    tensors = (*op.inputs, *op.outputs)
    return any(each.dtype == tf.float64 for each in tensors) and all(each.dtype != tf.resource for each in tensors)


@lowering_where(_in_double)
def in_single(op: Any, inputs: Sequence[tf.Tensor], emitter: Emitter) -> Sequence[tf.Tensor]:
    """The op is traced for itself in float32, and emitted as any other."""
    values = [folded(each) for each in op.outputs]
    if values and all(each is not None for each in values):
        return [tf.constant(_near(each), _single(tensor.dtype)) for each, tensor in zip(values, op.outputs)]
    if op.type == "Cast":
        return [tf.cast(inputs[0], _single(op.outputs[0].dtype))]
    graph, bound = tf.__internal__.FuncGraph(f"{op.type}_in_single"), {}
    with graph.as_default(), tf.name_scope(f"{op.name}/"):
        given = []
        for tensor, new in zip(op.inputs, inputs):
            if (known := folded(tensor) if tensor.dtype.is_integer else None) is not None:
                given.append(tf.constant(known, tensor.dtype))
                continue
            given.append(tf.compat.v1.placeholder(_single(tensor.dtype), static_shape(tensor)))
            bound[given[-1].name] = new
        types = [_single(tensor.dtype) for tensor in op.outputs]
        made = graph._create_op_internal(op.type, given, types, attrs=_attributes(op), name="in_single")
    return emitter.emit(graph, bound, list(made.outputs))


def _near(values: Any) -> Any:
    """The nearest numbers that float32 has; what is not 0 stays so, since logarithms of it are finite."""
    array: Any = np.asarray(values)
    if array.dtype != np.float64:
        return array
    tiny = np.finfo(np.float32).tiny
    return np.where((array != 0) & (np.abs(array) < tiny), np.copysign(tiny, array), array).astype(np.float32)


def _single(dtype: tf.DType) -> tf.DType:
    return tf.float32 if dtype == tf.float64 else dtype


def _attributes(op: Any) -> dict[str, Any]:
    kept = {key: value for key, value in op.node_def.attr.items() if not key.startswith("_")}
    single = tf.compat.v1.AttrValue(type=tf.float32.as_datatype_enum)
    return {key: single if value.type == tf.float64.as_datatype_enum else value for key, value in kept.items()}
