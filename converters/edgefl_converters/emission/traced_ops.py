"""Reads what a traced op says of itself without being run: its attributes, constants and static shapes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import tensorflow as tf

from edgefl.errors import UnsupportedModelError

__all__ = ["attribute", "computed", "constant", "folded", "know_inputs", "static_shape"]

_KNOWN: WeakKeyDictionary[Any, dict[str, Any]] = WeakKeyDictionary()
"""Graphs of functions to those of their inputs that are called with constants, by name."""


def attribute(op: Any, name: str) -> Any:
    """An attribute of a traced op; text as ``str``."""
    value = op.get_attr(name)
    return value.decode() if isinstance(value, bytes) else value


def static_shape(tensor: tf.Tensor) -> tuple[int, ...]:
    """The shape of a tensor, which must be known.

    Raises:
        UnsupportedModelError: a dimension is not.
    """
    if tensor.shape.rank is None or None in tensor.shape.as_list():
        raise UnsupportedModelError(
            f"The shape of {tensor.name!r} depends on the data: {tensor.shape}.",
            hint="Only operations whose output shape is known can be trained on devices.",
        )
    return tuple(tensor.shape.as_list())


def constant(op: Any, index: int) -> Any:
    """The value of an op's input as a numpy array, which must not depend on data.

    Raises:
        UnsupportedModelError: it does.
    """
    value = folded(op.inputs[index])
    if value is None:
        raise UnsupportedModelError(
            f"Input {index} of {op.type} ({op.name!r}) depends on the data, it must be a constant.",
            hint="Use sizes, axes and paddings that are fixed when the model is built.",
        )
    return value


def know_inputs(graph: Any, given: Mapping[str, Any]) -> None:
    """Notes which inputs of a function are constants where it is called: sizes, axes and the like go in as arguments.

    Args:
        graph: of the function.
        given: names of its inputs to what it is called with.
    """
    small = {name: each for name, each in given.items() if isinstance(each, tf.Tensor) and each.dtype.is_integer}
    values = {name: folded(each) for name, each in small.items() if (each.shape.num_elements() or 0) <= _FEW}
    _KNOWN[graph] = {name: value for name, value in values.items() if value is not None}


_FEW = 64
"""Elements that sizes, axes, paddings and the like have at most."""

_MEASURES = ("Shape", "ShapeN", "Size", "Rank")


def folded(tensor: tf.Tensor) -> Any:
    """The value of a tensor that follows from constants and known shapes alone; None for any other."""
    value = tf.get_static_value(tensor)
    if value is None and _follows_from_shapes(tensor):
        value = computed(tensor, {})
    return value


def _follows_from_shapes(tensor: tf.Tensor) -> bool:
    waiting, seen = [tensor], set()
    while waiting:
        op = waiting.pop().op
        if op.name in seen or op.type == "Const":
            continue
        seen.add(op.name)
        if _known(op) is not None:
            continue
        if op.type in _MEASURES:
            if not all(each.shape.is_fully_defined() for each in op.inputs):
                return False
        elif not op.inputs or op.type in ("Placeholder", "ReadVariableOp") or len(seen) > 200:
            return False
        else:
            waiting.extend(op.inputs)
    return True


def _known(op: Any) -> Any:
    return _KNOWN.get(op.graph, {}).get(op.outputs[0].name) if op.type == "Placeholder" else None


def computed(tensor: tf.Tensor, known: dict[str, Any]) -> Any:
    """Runs the ops that lead to a tensor, by TensorFlow's own kernels.

    Args:
        tensor: that follows from constants, shapes and what is known.
        known: values by the names of tensors; filled.
    """
    if tensor.name not in known:
        op = tensor.op
        if (value := _known(op)) is not None:
            known[tensor.name] = value
        elif op.type == "Const":
            known[tensor.name] = tf.make_ndarray(op.get_attr("value"))
        elif op.type in _MEASURES:
            shape = op.inputs[tensor.value_index].shape.as_list()
            value = {"Size": int(np.prod(shape)), "Rank": len(shape)}.get(op.type, shape)
            known[tensor.name] = np.asarray(value, tensor.dtype.as_numpy_dtype)
        else:
            results = _run(op, [computed(each, known) for each in op.inputs])
            known.update((output.name, result) for output, result in zip(op.outputs, results))
    return known[tensor.name]


def _run(op: Any, inputs: Sequence[Any]) -> Sequence[Any]:
    with tf.Graph().as_default() as graph:
        attributes = {key: value for key, value in op.node_def.attr.items() if not key.startswith("_")}
        types = [output.dtype for output in op.outputs]
        made = graph._create_op_internal(op.type, list(map(tf.constant, inputs)), types, attrs=attributes)
        with tf.compat.v1.Session(graph=graph) as session:
            values: Sequence[Any] = session.run(list(made.outputs))
            return values
