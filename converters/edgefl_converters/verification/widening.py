"""A step that was traced in float32, done in float64: for models of which Keras has no copy in that type.

Some layers make float32 numbers whatever type they are given (RandomRotation turns degrees into radians so), some
models cannot be rebuilt from a configuration, and some train in a way of their own. Keras in float32 is no reference
for them: where a gradient sums thousands of equal numbers, it misses by more than a runtime that sums in stages.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray
from tensorflow.core.framework import types_pb2
from tensorflow.python.framework import ops
from tensorflow.python.ops import gen_resource_variable_ops as resources

from edgefl_converters.training_step.traced_graphs import assigned_inputs, function_graph, in_order

__all__ = ["Widening"]

_NARROW, _WIDE = types_pb2.DT_FLOAT, types_pb2.DT_DOUBLE
_ADDED = "_edgefl"


@dataclass
class _Twin:
    """A float64 variable beside one of float32.

    Attributes:
        handle: of the float32 variable.
        variable: the float64 one.
        seen: what the float32 one held when both were last the same but for rounding.
    """

    handle: tf.Tensor
    variable: tf.Variable
    seen: NDArray[np.float32]


class Widening:
    """The float64 variables that widened functions share, each beside a float32 one.

    What Python assigns to a float32 variable holds for the other one too from the next call on; what a call makes of
    the float64 one is seen, rounded, in the float32 one.
    """

    def __init__(self) -> None:
        self._twins: dict[int, _Twin] = {}

    def function(self, traced: Any) -> Callable[..., Any]:
        """Makes what a traced function computes in float32 be computed in float64.

        Args:
            traced: a concrete function.

        Returns:
            A function of the same arrays, whose float32 results are float64.

        Raises:
            Exception: of any kind, TensorFlow's: it has no such kernel.
        """
        graph = traced.graph
        captured = {inner.name: self._own(outer) for outer, inner in graph.captures}
        given = [each for each in graph.inputs if each.name not in captured]
        names = assigned_inputs(graph, traced.outputs)
        changed = {id(outer) for outer, inner in graph.captures if inner.name in names}

        def run(*tensors: tf.Tensor) -> list[tf.Tensor]:
            bound = {**captured, **{own.name: new for own, new in zip(given, tensors, strict=True)}}
            return [tf.identity(each) for each in _emitted(graph, bound, traced.outputs)]

        signature = [tf.TensorSpec(each.shape, _wider(each.dtype)) for each in given]
        wide = tf.function(run, input_signature=signature, autograph=False)

        def call(*arrays: Any) -> Any:
            for twin in self._twins.values():
                _follow(twin)
            results = wide(*(tf.cast(array, spec.dtype) for array, spec in zip(arrays, signature, strict=True)))
            # What is not assigned, such as large frozen weights, is what it was, and is not copied.
            for twin in (self._twins[handle] for handle in changed if handle in self._twins):
                resources.assign_variable_op(twin.handle, tf.cast(twin.variable, tf.float32))
                twin.seen = _read(twin.handle)
            return tf.nest.pack_sequence_as(traced.structured_outputs, results)

        return call

    def value(self, variable: Any) -> NDArray[Any]:
        """The value of one of Keras's variables, in float64 where it has one of that type beside it."""
        twin = self._twins.get(id(getattr(variable.value, "handle", None)))
        if twin is None:
            return np.array(variable)
        _follow(twin)
        return np.array(twin.variable)

    def _own(self, outer: tf.Tensor) -> tf.Tensor:
        if outer.dtype == tf.float32:
            return tf.cast(outer, tf.float64)
        if outer.dtype != tf.resource or _type_of_variable(outer) != _NARROW:
            return outer
        if id(outer) not in self._twins:
            now = _read(outer)
            self._twins[id(outer)] = _Twin(outer, tf.Variable(now, dtype=tf.float64, trainable=False), now)
        return self._twins[id(outer)].variable.handle


def _read(handle: tf.Tensor) -> NDArray[np.float32]:
    """A view: TensorFlow gives a variable that is assigned other memory while somebody looks at this."""
    return np.asarray(memoryview(resources.read_variable_op(handle, tf.float32)))


def _follow(twin: _Twin) -> None:
    now = _read(twin.handle)
    if now.ctypes.data != twin.seen.ctypes.data and not np.array_equal(now, twin.seen, equal_nan=True):
        twin.variable.assign(now.astype(np.float64))
        twin.seen = now


def _type_of_variable(handle: tf.Tensor) -> int | None:
    known = getattr(handle, "_handle_data", None)
    shapes_and_types = known.shape_and_type if known is not None and known.is_set else ()
    return shapes_and_types[0].dtype if shapes_and_types else None


def _wider(dtype: tf.DType) -> tf.DType:
    return tf.float64 if dtype == tf.float32 else dtype


def _emitted(graph: Any, bound: Mapping[str, Any], results: Sequence[tf.Tensor]) -> list[tf.Tensor]:
    """Emits a graph into the present one; whatever was float32 in it is float64 there.

    Args:
        graph: the traced one.
        bound: new tensors by the names of the graph's inputs.
        results: tensors of the graph.
    """
    made: dict[str, Any] = dict(bound)
    for op in in_order(graph, results):
        if op.type in ("Placeholder", "NoOp", "Assert"):
            continue
        inputs = [made[tensor.name] for tensor in op.inputs]
        outputs = _CALLING.get(op.type, _widened)(op, inputs)
        made.update((old.name, new) for old, new in zip(op.outputs, outputs))
    return [made[result.name] for result in results]


def _inner(op: Any, attribute: str, inputs: Sequence[tf.Tensor]) -> list[tf.Tensor]:
    graph = function_graph(op.get_attr(attribute).name)
    return _emitted(graph, {own.name: new for own, new in zip(graph.inputs, inputs)}, graph.outputs)


def _call(op: Any, inputs: Sequence[tf.Tensor]) -> Sequence[tf.Tensor]:
    return _inner(op, "f", inputs)


def _conditional(op: Any, inputs: Sequence[tf.Tensor]) -> Sequence[tf.Tensor]:
    predicate, data = inputs[0], inputs[1:]
    if predicate.dtype != tf.bool:
        predicate = tf.not_equal(predicate, 0)

    def branch(attribute: str) -> Callable[[], list[tf.Tensor]]:
        return lambda: [tf.identity(each) for each in _inner(op, attribute, data)]

    return list(tf.nest.flatten(tf.cond(predicate, branch("then_branch"), branch("else_branch"))))


def _loop(op: Any, inputs: Sequence[tf.Tensor]) -> Sequence[tf.Tensor]:
    # Variables stay where they are: the body sees those of the graph around it.
    carried = [index for index, each in enumerate(inputs) if each.dtype != tf.resource]

    def with_variables(values: Sequence[tf.Tensor]) -> list[tf.Tensor]:
        given = list(inputs)
        for index, value in zip(carried, values):
            given[index] = value
        return given

    def body(*values: tf.Tensor) -> list[tf.Tensor]:
        results = _inner(op, "body", with_variables(values))
        return [results[index] for index in carried]

    finished = tf.nest.flatten(
        tf.while_loop(
            lambda *values: _inner(op, "cond", with_variables(values))[0],
            body,
            [inputs[index] for index in carried],
            shape_invariants=[op.outputs[index].shape for index in carried],
        )
    )
    return with_variables(finished)


_CALLING: dict[str, Callable[[Any, Sequence[tf.Tensor]], Sequence[tf.Tensor]]] = {
    **dict.fromkeys(("PartitionedCall", "StatefulPartitionedCall"), _call),
    **dict.fromkeys(("If", "StatelessIf"), _conditional),
    **dict.fromkeys(("StatelessWhile", "While"), _loop),
}


def _widened(op: Any, inputs: Sequence[tf.Tensor]) -> Sequence[tf.Tensor]:
    """Makes one op in float64; in float32 between casts where TensorFlow has it in that type alone."""
    if op.type == "Const":
        value = tf.make_ndarray(op.get_attr("value"))
        return [tf.constant(value, _wider(op.outputs[0].dtype), shape=value.shape)]
    attributes = {key: value for key, value in op.node_def.attr.items() if not key.startswith("_")}
    wide = {key: _wide_attribute(value) for key, value in attributes.items()}
    allowed = {each.name: each.allowed_values.list.type for each in op.op_def.attr}
    if all(not allowed.get(key) or set(_types(value)) <= set(allowed[key]) for key, value in wide.items()):
        attributes = wide
    taken = [_cast(each, dtype) for each, dtype in zip(inputs, _expected(op.op_def.input_arg, attributes), strict=True)]
    types = list(map(tf.as_dtype, _expected(op.op_def.output_arg, attributes)))
    made = ops.get_default_graph()._create_op_internal(
        op.type, taken, types, name=f"{op.type}{_ADDED}", attrs=attributes
    )
    return [tf.cast(each, _wider(old.dtype)) for each, old in zip(made.outputs, op.outputs)]


def _wide_attribute(value: Any) -> Any:
    if _NARROW not in _types(value):
        return value
    changed = tf.compat.v1.AttrValue()
    changed.CopyFrom(value)
    if value.HasField("type"):
        changed.type = _WIDE
    else:
        changed.list.type[:] = [_WIDE if each == _NARROW else each for each in value.list.type]
    return changed


def _types(value: Any) -> Sequence[int]:
    return [value.type] if value.HasField("type") else list(value.list.type)


def _expected(arguments: Sequence[Any], attributes: Mapping[str, Any]) -> list[int]:
    """The types of an op's inputs or outputs, in order, as its attributes say."""
    types: list[int] = []
    for each in arguments:
        if each.type_list_attr:
            types += attributes[each.type_list_attr].list.type
            continue
        one = attributes[each.type_attr].type if each.type_attr else each.type
        types += [one] * (attributes[each.number_attr].i if each.number_attr else 1)
    return types


def _cast(tensor: tf.Tensor, dtype: int) -> tf.Tensor:
    return tensor if dtype not in (_NARROW, _WIDE) else tf.cast(tensor, tf.as_dtype(dtype))
