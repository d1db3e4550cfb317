"""Ops that call functions: calls are inlined, branches and loops emitted again with variables as values.

A variable that a branch or a loop assigns becomes one more of its results.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf

from edgefl_converters.emission.registry import Emitter, lowering
from edgefl_converters.emission.traced_ops import folded, know_inputs
from edgefl_converters.emission.walk_values import Handle, OptionalValues
from edgefl_converters.training_step.traced_graphs import assigned_inputs, function_graph

__all__: list[str] = []


@lowering("PartitionedCall", "StatefulPartitionedCall")
def _call(op: Any, inputs: Sequence[Any], emitter: Emitter) -> Sequence[Any]:
    inner = function_graph(op.get_attr("f").name)
    bound = _bound(inner, inputs)
    know_inputs(inner, bound)
    return emitter.emit(inner, bound, inner.outputs)


@lowering("If", "StatelessIf")
def _conditional(op: Any, inputs: Sequence[Any], emitter: Emitter) -> Sequence[Any]:
    graphs = [function_graph(op.get_attr(name).name) for name in ("then_branch", "else_branch")]
    predicate, data = inputs[0], inputs[1:]
    for graph in graphs:
        know_inputs(graph, _bound(graph, data))
    if (known := folded(op.inputs[0])) is not None:
        chosen = graphs[0] if known else graphs[1]
        return emitter.emit(chosen, _bound(chosen, data), chosen.outputs)
    if predicate.dtype != tf.bool:
        predicate = tf.not_equal(predicate, 0)
    keys: dict[Any, None] = {}
    for graph in graphs:
        assigned = assigned_inputs(graph, graph.outputs)
        keys.update({given.key: None for own, given in zip(graph.inputs, data) if own.name in assigned})
    _read_before(emitter, data)
    layouts = [_optional_layout(graphs, index) for index in range(len(op.outputs))]

    def body(graph: Any) -> Callable[[], list[tf.Tensor]]:
        def emit() -> list[tf.Tensor]:
            inner = emitter.branch()
            results = inner.emit(graph, _bound(graph, data), graph.outputs)
            emitter.streams = max(emitter.streams, inner.streams)
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
        next(emitted) if layout is None else OptionalValues([next(emitted) for _ in layout]) for layout in layouts
    ]
    for key in keys:
        emitter.assign(key, next(emitted))
    return outputs


def _optional_layout(graphs: Sequence[Any], index: int) -> list[tf.Tensor] | None:
    """Returns what an optional output of two branches holds where it holds anything; None for a plain output."""
    makers = [graph.outputs[index].op for graph in graphs]
    while any(maker.type == "Identity" for maker in makers):
        makers = [maker.inputs[0].op if maker.type == "Identity" else maker for maker in makers]
    if not any(maker.type.startswith("Optional") for maker in makers):
        return None
    return next((list(maker.inputs) for maker in makers if maker.type == "OptionalFromValue"), [])


@lowering("StatelessWhile", "While")
def _loop(op: Any, inputs: Sequence[Any], emitter: Emitter) -> Sequence[Any]:
    condition, body = (function_graph(op.get_attr(name).name) for name in ("cond", "body"))
    assigned = assigned_inputs(body, body.outputs)
    keys = list({given.key: None for own, given in zip(body.inputs, inputs) if own.name in assigned})
    carried = [index for index, given in enumerate(inputs) if not isinstance(given, Handle)]

    def emit(graph: Any, variables: Sequence[tf.Tensor]) -> tuple[list[Any], Emitter]:
        inner = emitter.branch()
        inner.values.update(zip(keys, variables[len(carried) :]))
        given = list(inputs)
        for index, value in zip(carried, variables):
            given[index] = value
        results = inner.emit(graph, _bound(graph, given), graph.outputs)
        emitter.streams = max(emitter.streams, inner.streams)
        return results, inner

    def proceed(*variables: tf.Tensor) -> tf.Tensor:
        return emit(condition, variables)[0][0]

    def step(*variables: tf.Tensor) -> list[tf.Tensor]:
        results, inner = emit(body, variables)
        return [*(results[index] for index in carried), *(inner.value(key) for key in keys)]

    _read_before(emitter, inputs)
    start = [*(inputs[index] for index in carried), *(emitter.value(key) for key in keys)]
    shapes = [op.outputs[index].shape for index in carried] + [each.shape for each in start[len(carried) :]]
    finished = tf.nest.flatten(tf.while_loop(proceed, step, start, shape_invariants=shapes))
    for key, value in zip(keys, finished[len(carried) :]):
        emitter.assign(key, value)
    outputs = list(inputs)
    for index, value in zip(carried, finished):
        outputs[index] = value
    return outputs


def _read_before(emitter: Emitter, inputs: Sequence[Any]) -> None:
    """Reads variables outside of the branches: what one branch reads first the other could not use."""
    for each in inputs:
        if isinstance(each, Handle):
            emitter.value(each.key)


def _bound(graph: Any, inputs: Sequence[Any]) -> dict[str, Any]:
    return {own.name: given for own, given in zip(graph.inputs, inputs)}


@lowering("OptionalFromValue")
def _optional(op: Any, inputs: Sequence[Any], emitter: Emitter) -> Sequence[Any]:
    return [OptionalValues(inputs)]


@lowering("OptionalGetValue")
def _values_of_optional(op: Any, inputs: Sequence[Any], emitter: Emitter) -> Sequence[Any]:
    return list(inputs[0].values)


@lowering("OptionalNone")
def _empty_optional(op: Any, inputs: Sequence[Any], emitter: Emitter) -> Sequence[Any]:
    return [OptionalValues([])]
