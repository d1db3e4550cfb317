"""Emits a traced graph again, op by op, into the graph that is being built.

Variables become values: a variable is read once where it is first needed and assigned once at the end, whatever the traced
graph did in between. So one op that only TensorFlow knows on variables (a scatter, an update in a branch) cannot send all of
them to another runtime.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import tensorflow as tf
from tensorflow.python.eager import context
from tensorflow.python.framework import function_def_to_graph, ops

from edgefl.errors import EdgeflError
from edgefl_converters.lowerings import LOWERINGS

__all__ = ["Origin", "Origins", "Walk", "reachable_op_types"]


@dataclass(frozen=True)
class Origin:
    """Where a new op comes from.

    Attributes:
        op_type: the traced TensorFlow op.
        op_name: its name in the traced graph, which leads to the layer.
        lowered: True when builtin ops stand in for it.
    """

    op_type: str
    op_name: str
    lowered: bool


class Origins:
    """Every op that was emitted: names in the new graph are numbers into it, so that they do not depend on the process."""

    def __init__(self) -> None:
        self.all: list[Origin] = []

    def add(self, origin: Origin) -> str:
        """Records an op and returns its name in the new graph."""
        self.all.append(origin)
        return f"op{len(self.all) - 1}"


class _Handle:
    """A traced variable; ``key`` is the same for every capture of it."""

    def __init__(self, key: Any) -> None:
        self.key = key


class _Optional:
    """What one branch of a conditional keeps for its gradient, and the other does not have."""

    def __init__(self, values: Sequence[tf.Tensor]) -> None:
        self.values = list(values)


class Walk:
    """The state of one emission.

    Args:
        read: makes a tensor with the current value of a variable, given the variable's key.
        origins: filled with what was emitted.
        seed: the input that random numbers are a function of, shape ``[1]`` int32.
    """

    def __init__(self, read: Callable[[Any], tf.Tensor], origins: Origins, seed: tf.Tensor | None = None) -> None:
        self._read = read
        self._origins = origins
        self._streams = 0
        self.seed = seed
        self.values: dict[Any, tf.Tensor] = {}
        self.assigned: dict[Any, None] = {}
        self._shared: dict[Any, tf.Tensor] = {}

    # What lowerings see (lowerings.registry.Context).

    def next_stream(self) -> int:
        """A number of its own for each random op."""
        self._streams += 1
        return self._streams

    def shared(self, key: Any, make: Callable[[], tf.Tensor]) -> tf.Tensor:
        """A tensor that several ops need, made once."""
        key = (id(ops.get_default_graph()), key)
        if key not in self._shared:
            self._shared[key] = make()
        return self._shared[key]

    # The walk.

    def emit(self, graph: Any, bound: Mapping[str, Any], results: Sequence[tf.Tensor]) -> list[tf.Tensor]:
        """Emits what the results need, and everything that changes a variable.

        Args:
            graph: the traced graph.
            bound: names of its input tensors to new tensors or variable handles (`handle`).
            results: tensors of the traced graph.

        Returns:
            New tensors for the results.
        """
        environment: dict[str, Any] = dict(bound)
        for op in _in_order(graph, results):
            self._emit_op(op, environment)
        return [environment[result.name] for result in results]

    @staticmethod
    def handle(key: Any) -> Any:
        """What stands for a variable among the bound inputs."""
        return _Handle(key)

    def value(self, key: Any) -> tf.Tensor:
        """The current value of a variable."""
        if key not in self.values:
            self.values[key] = self._read(key)
        return self.values[key]

    def assign(self, key: Any, value: tf.Tensor) -> None:
        """Gives a variable a new value."""
        self.values[key] = value
        self.assigned[key] = None

    def _emit_op(self, op: Any, environment: dict[str, Any]) -> None:
        if op.type in ("Placeholder", "NoOp", "Assert"):
            return
        inputs = [environment[tensor.name] for tensor in op.inputs]
        special = _SPECIAL.get(op.type)
        if op.type == "Identity":
            environment[op.outputs[0].name] = inputs[0]
            return
        try:
            if special is not None:
                name = self._origins.add(Origin(op.type, op.name, lowered=op.type not in _VARIABLE_OPS))
                with tf.name_scope(name):
                    outputs: Sequence[Any] = special(self, op, inputs)
            else:
                outputs = self._lower_or_copy(op, inputs)
        except EdgeflError:
            raise
        except Exception as error:
            raise EmissionError(op, error) from error
        for old, new in zip(op.outputs, outputs):
            if isinstance(new, tf.Tensor):
                new = _same_shape(op, old, new)
            environment[old.name] = new

    def _lower_or_copy(self, op: Any, inputs: Sequence[tf.Tensor]) -> Sequence[tf.Tensor]:
        lower = LOWERINGS.get(op.type)
        if lower is not None:
            number = len(self._origins.all)
            name = self._origins.add(Origin(op.type, op.name, lowered=True))
            with tf.name_scope(name):
                outputs = lower(op, inputs, self)
            if outputs is not None:
                return outputs
            self._origins.all[number] = Origin(op.type, op.name, lowered=False)
            return _copy(op, inputs, f"{name}_kept")
        return _copy(op, inputs, self._origins.add(Origin(op.type, op.name, lowered=False)))

    def branch(self) -> Walk:
        """A walk for the body of a conditional, which starts from the values of this one."""
        inner = Walk(self.value, self._origins, self.seed)
        inner._streams = self._streams
        return inner


class EmissionError(Exception):
    """An op could not be emitted again; ``op`` is the traced one."""

    def __init__(self, op: Any, error: Exception) -> None:
        super().__init__(f"{type(error).__name__}: {error}")
        self.op = op


def reachable_op_types(graph: Any, results: Sequence[tf.Tensor]) -> set[str]:
    """Types of all ops that the walk would meet, in called functions too."""
    types: set[str] = set()
    for op in _in_order(graph, results):
        types.add(op.type)
        for name in _called_functions(op):
            inner = _function_graph(name)
            types |= reachable_op_types(inner, inner.outputs)
    return types


def assigned_inputs(graph: Any, results: Sequence[tf.Tensor]) -> set[str]:
    """Names of the resource inputs of a graph that something in it assigns."""
    origin: dict[str, str] = {tensor.name: tensor.name for tensor in graph.inputs}
    found: set[str] = set()
    for op in _in_order(graph, results):
        if op.type == "Identity" and op.inputs[0].dtype == tf.resource:
            origin[op.outputs[0].name] = origin[op.inputs[0].name]
        if op.type in _ASSIGNING:
            found.add(origin[op.inputs[0].name])
        data = list(op.inputs)[1:] if op.type in ("If", "StatelessIf") else list(op.inputs)
        for name in _called_functions(op):
            inner = _function_graph(name)
            assigned = assigned_inputs(inner, inner.outputs)
            found |= {origin[outer.name] for outer, own in zip(data, inner.inputs) if own.name in assigned}
    return found


def _in_order(graph: Any, results: Sequence[tf.Tensor]) -> list[Any]:
    """The ops that results and variable changes need, in an order that data and control dependencies allow.

    A graph lists its ops in order of creation, which stops being such an order once a While has a gradient.
    """
    operations = graph.get_operations()
    position = {op.name: index for index, op in enumerate(operations)}
    before = [
        {position[tensor.op.name] for tensor in op.inputs} | {position[each.name] for each in op.control_inputs}
        for op in operations
    ]
    after: list[list[int]] = [[] for _ in operations]
    for index, needed in enumerate(before):
        for other in needed:
            after[other].append(index)
    waiting = [len(needed) for needed in before]
    ready = [index for index, count in enumerate(waiting) if count == 0]
    heapq.heapify(ready)
    order = []
    while ready:
        index = heapq.heappop(ready)
        order.append(index)
        for other in after[index]:
            waiting[other] -= 1
            if waiting[other] == 0:
                heapq.heappush(ready, other)
    needed_ops = _needed(operations, position, results)
    return [operations[index] for index in order if index in needed_ops]


def _needed(operations: Sequence[Any], position: Mapping[str, int], results: Iterable[tf.Tensor]) -> set[int]:
    pending = [position[tensor.op.name] for tensor in results]
    pending += [index for index, op in enumerate(operations) if _changes_variables(op)]
    needed: set[int] = set()
    while pending:
        index = pending.pop()
        if index not in needed:
            needed.add(index)
            pending.extend(position[tensor.op.name] for tensor in operations[index].inputs)
    return needed


def _changes_variables(op: Any) -> bool:
    if op.type in _ASSIGNING:
        return True
    for name in _called_functions(op):
        inner = _function_graph(name)
        if any(_changes_variables(each) for each in inner.get_operations()):
            return True
    return False


def _called_functions(op: Any) -> list[str]:
    return [
        op.get_attr(name).name
        for name in ("f", "then_branch", "else_branch", "cond", "body")
        if op.type in _CALLING and name in op.node_def.attr
    ]


def _function_graph(name: str) -> Any:
    """The graph of a function that an op calls; TensorFlow gives every function a name of its own in a process."""
    if name not in _GRAPHS:
        definition = context.context().get_function_def(name)
        _GRAPHS[name] = function_def_to_graph.function_def_to_graph(definition)
    return _GRAPHS[name]


_GRAPHS: dict[str, Any] = {}


def _copy(op: Any, inputs: Sequence[tf.Tensor], name: str) -> Sequence[tf.Tensor]:
    # Attributes that begin with an underscore talk about the traced graph: a copied `_gradient_op_type` breaks saving.
    attributes = {key: value for key, value in op.node_def.attr.items() if not key.startswith("_")}
    types = [tensor.dtype for tensor in op.outputs]
    made = ops.get_default_graph()._create_op_internal(op.type, list(inputs), types, name=name, attrs=attributes)
    return tuple(made.outputs)


def _same_shape(op: Any, old: tf.Tensor, new: tf.Tensor) -> tf.Tensor:
    if not old.shape.is_compatible_with(new.shape):
        raise AssertionError(f"Lowering of {op.type} gave shape {new.shape}, expected {old.shape} ({op.name}).")
    if not new.shape.is_fully_defined() and old.shape.is_fully_defined():
        new.set_shape(old.shape)
    return new


# Ops on variables and ops with functions inside.


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


def _call(walk: Walk, op: Any, inputs: Sequence[Any]) -> Sequence[Any]:
    inner = _function_graph(op.get_attr("f").name)
    return walk.emit(inner, _bound(inner, inputs), inner.outputs)


def _conditional(walk: Walk, op: Any, inputs: Sequence[Any]) -> Sequence[Any]:
    graphs = [_function_graph(op.get_attr(name).name) for name in ("then_branch", "else_branch")]
    predicate, data = inputs[0], inputs[1:]
    if predicate.dtype != tf.bool:
        predicate = tf.not_equal(predicate, 0)
    keys: dict[Any, None] = {}
    for graph in graphs:
        assigned = assigned_inputs(graph, graph.outputs)
        keys.update({given.key: None for own, given in zip(graph.inputs, data) if own.name in assigned})
    for key in keys:
        walk.value(key)
    layouts = [_optional_layout(graphs, index) for index in range(len(op.outputs))]

    def body(graph: Any) -> Callable[[], list[tf.Tensor]]:
        def emit() -> list[tf.Tensor]:
            inner = walk.branch()
            results = inner.emit(graph, _bound(graph, data), graph.outputs)
            walk._streams = max(walk._streams, inner._streams)
            flat: list[tf.Tensor] = []
            for result, layout in zip(results, layouts):
                if layout is None:
                    flat.append(result)
                else:
                    flat += result.values or [tf.zeros(each.shape, each.dtype) for each in layout]
            return [tf.identity(each) for each in (*flat, *(inner.value(key) for key in keys))]

        return emit

    emitted = iter(tf.nest.flatten(tf.cond(predicate, body(graphs[0]), body(graphs[1]))))
    outputs = [
        next(emitted) if layout is None else _Optional([next(emitted) for _ in layout]) for layout in layouts
    ]
    for key in keys:
        walk.assign(key, next(emitted))
    return outputs


def _optional_layout(graphs: Sequence[Any], index: int) -> list[tf.Tensor] | None:
    """What an optional output of two branches holds where it holds anything; None for a plain output."""
    makers = [graph.outputs[index].op for graph in graphs]
    while any(maker.type == "Identity" for maker in makers):
        makers = [maker.inputs[0].op if maker.type == "Identity" else maker for maker in makers]
    if not any(maker.type.startswith("Optional") for maker in makers):
        return None
    return next((list(maker.inputs) for maker in makers if maker.type == "OptionalFromValue"), [])


def _loop(walk: Walk, op: Any, inputs: Sequence[Any]) -> Sequence[Any]:
    condition, body = (_function_graph(op.get_attr(name).name) for name in ("cond", "body"))
    assigned = assigned_inputs(body, body.outputs)
    keys = list({given.key: None for own, given in zip(body.inputs, inputs) if own.name in assigned})
    carried = [index for index, given in enumerate(inputs) if not isinstance(given, _Handle)]

    def emit(graph: Any, variables: Sequence[tf.Tensor]) -> tuple[list[Any], Walk]:
        inner = walk.branch()
        inner.values.update(zip(keys, variables[len(carried) :]))
        given = list(inputs)
        for index, value in zip(carried, variables):
            given[index] = value
        results = inner.emit(graph, _bound(graph, given), graph.outputs)
        walk._streams = max(walk._streams, inner._streams)
        return results, inner

    def proceed(*variables: tf.Tensor) -> tf.Tensor:
        return emit(condition, variables)[0][0]

    def step(*variables: tf.Tensor) -> list[tf.Tensor]:
        results, inner = emit(body, variables)
        return [*(results[index] for index in carried), *(inner.value(key) for key in keys)]

    start = [*(inputs[index] for index in carried), *(walk.value(key) for key in keys)]
    shapes = [op.outputs[index].shape for index in carried] + [each.shape for each in start[len(carried) :]]
    finished = tf.nest.flatten(tf.while_loop(proceed, step, start, shape_invariants=shapes))
    for key, value in zip(keys, finished[len(carried) :]):
        walk.assign(key, value)
    outputs = list(inputs)
    for index, value in zip(carried, finished):
        outputs[index] = value
    return outputs


def _bound(graph: Any, inputs: Sequence[Any]) -> dict[str, Any]:
    return {own.name: given for own, given in zip(graph.inputs, inputs)}


_Special = Callable[[Walk, Any, Sequence[Any]], Sequence[Any]]
_VARIABLE_OPS: dict[str, _Special] = {
    "AssignAddVariableOp": _assign_add,
    "AssignSubVariableOp": _assign_sub,
    "AssignVariableOp": _assign_variable,
    "ReadVariableOp": _read_variable,
    "ResourceGather": _gather,
    "ResourceScatterAdd": _scatter_add,
    "ResourceScatterSub": _scatter_sub,
}
_ASSIGNING = frozenset(_VARIABLE_OPS) - {"ReadVariableOp", "ResourceGather"}
_SPECIAL: dict[str, _Special] = {
    **_VARIABLE_OPS,
    "If": _conditional,
    "OptionalFromValue": lambda walk, op, inputs: [_Optional(inputs)],
    "OptionalGetValue": lambda walk, op, inputs: inputs[0].values,
    "OptionalNone": lambda walk, op, inputs: [_Optional([])],
    "PartitionedCall": _call,
    "StatefulPartitionedCall": _call,
    "StatelessIf": _conditional,
    "StatelessWhile": _loop,
    "While": _loop,
}
_CALLING = frozenset({"If", "PartitionedCall", "StatefulPartitionedCall", "StatelessIf", "StatelessWhile", "While"})
