"""A large variable is read anew for each op that needs it, in a converted file.

XNNPACK in ai-edge-litert hands an op the variable itself where the op is the only one that reads what was read, and
copies it where there are several: a step of the 2NN with 10 rows takes 0.85 of the time and no copy of the weights.
tflite-runtime 2.14 copies at every reading: there that step takes 1.1 times as long, so a file for it alone reads once.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

from tensorflow.lite.python import schema_py_generated as schema

from edgefl_converters.flatbuffer.graph_index import GraphIndex
from edgefl_converters.flatbuffer.pass_context import PassContext
from edgefl_converters.flatbuffer.passes.base import register_pass
from edgefl_converters.flatbuffer.tensor_sizes import bytes_of

__all__ = ["read_at_each_use", "read_variables_at_each_use"]

_LARGE = 1 << 14
"""Bytes of a variable from which an op more is worth it."""

_MOST_USES = 4
"""The weights of a recurrent layer are used at every step: copied once they cost less than an op for each."""


@register_pass("variable_reads", after="transposed_kernels", runtime="ai-edge-litert")
def read_variables_at_each_use(context: PassContext) -> None:
    """Reads large variables of all subgraphs anew for each op that needs them."""
    for subgraph in context.file.subgraphs:
        read_at_each_use(context.index(subgraph), context.file.builtin)


def read_at_each_use(index: GraphIndex, builtin: Callable[[Any], int]) -> None:
    """Gives each op that reads a large variable's value a READ_VARIABLE op of its own, at the place of the first.

    Args:
        index: of the subgraph, which is changed in place.
        builtin: the builtin operator of an op.
    """
    subgraph = index.subgraph
    fixed = {int(tensor) for tensor in subgraph.outputs}
    reads = {
        int(operator.outputs[0]): operator
        for operator in subgraph.operators
        if builtin(operator) == schema.BuiltinOperator.READ_VARIABLE
    }
    shared = {
        value
        for value in reads
        if 1 < len(index.read_at[value]) <= _MOST_USES and value not in fixed and bytes_of(subgraph, value) >= _LARGE
    }
    added: dict[int, list[Any]] = {value: [] for value in shared}
    taken: set[int] = set()
    for operator in subgraph.operators:
        inputs = [int(tensor) for tensor in operator.inputs]
        for place, value in enumerate(inputs):
            if value not in shared:
                continue
            if value not in taken:
                taken.add(value)  # the first use keeps the reading that is there
                continue
            reading = copy.copy(reads[value])
            subgraph.tensors.append(copy.copy(subgraph.tensors[value]))
            inputs[place] = len(subgraph.tensors) - 1
            reading.inputs, reading.outputs = list(reading.inputs), [inputs[place]]
            added[value].append(reading)
        operator.inputs = inputs
    subgraph.operators = [
        each
        for operator in subgraph.operators
        for each in (operator, *(added.get(int(operator.outputs[0]), ()) if len(operator.outputs) else ()))
    ]
