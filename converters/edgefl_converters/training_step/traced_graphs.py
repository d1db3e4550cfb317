"""Traced graphs as something to read: order, reachability, called functions, which variables are assigned."""

from __future__ import annotations

import functools
import heapq
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import tensorflow as tf
from tensorflow.python.eager import context
from tensorflow.python.framework import function_def_to_graph as function_graphs

__all__ = ["ASSIGNING", "RANDOM", "assigned_inputs", "function_graph", "in_order", "reachable_op_types"]

ASSIGNING = frozenset(
    {
        "AssignAddVariableOp",
        "AssignSubVariableOp",
        "AssignVariableOp",
        "ResourceScatterAdd",
        "ResourceScatterSub",
    }
)
RANDOM = re.compile(r"Random|Multinomial|TruncatedNormal")
"""Op types that draw random numbers, or their key."""
_CALLING = frozenset({"If", "PartitionedCall", "StatefulPartitionedCall", "StatelessIf", "StatelessWhile", "While"})


def reachable_op_types(graph: Any, results: Sequence[tf.Tensor]) -> set[str]:
    """Types of all ops that the walk would meet, in called functions too."""
    types: set[str] = set()
    for op in in_order(graph, results):
        types.add(op.type)
        for name in _called_functions(op):
            inner = function_graph(name)
            types |= reachable_op_types(inner, inner.outputs)
    return types


def assigned_inputs(graph: Any, results: Sequence[tf.Tensor]) -> set[str]:
    """Names of the resource inputs of a graph that something in it assigns."""
    origin: dict[str, str] = {tensor.name: tensor.name for tensor in graph.inputs}
    found: set[str] = set()
    for op in in_order(graph, results):
        if op.type == "Identity" and op.inputs[0].dtype == tf.resource:
            origin[op.outputs[0].name] = origin[op.inputs[0].name]
        if op.type in ASSIGNING:
            found.add(origin[op.inputs[0].name])
        data = list(op.inputs)[1:] if op.type in ("If", "StatelessIf") else list(op.inputs)
        for name in _called_functions(op):
            inner = function_graph(name)
            assigned = assigned_inputs(inner, inner.outputs)
            found |= {origin[outer.name] for outer, own in zip(data, inner.inputs) if own.name in assigned}
    return found


def in_order(graph: Any, results: Sequence[tf.Tensor]) -> list[Any]:
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
    if op.type in ASSIGNING:
        return True
    for name in _called_functions(op):
        inner = function_graph(name)
        if any(_changes_variables(each) for each in inner.get_operations()):
            return True
    return False


def _called_functions(op: Any) -> list[str]:
    return [
        op.get_attr(name).name
        for name in ("f", "then_branch", "else_branch", "cond", "body")
        if op.type in _CALLING and name in op.node_def.attr
    ]


@functools.lru_cache(maxsize=256)
def function_graph(name: str) -> Any:
    """The graph of a function that an op calls; TensorFlow gives every function a name of its own in a process."""
    return function_graphs.function_def_to_graph(context.context().get_function_def(name))
