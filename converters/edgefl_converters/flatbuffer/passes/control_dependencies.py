"""The order of a file's large ops, written into its metadata so that delegates keep to it.

A delegate computes whatever it can at the first opportunity, for instance a mask of every layer during the forward
pass. Dependencies between the large ops keep it from that. ai-edge-litert reads them (``model_control_dependencies``,
described in TensorFlow's compiler/mlir/lite/experimental/remat/metadata_util.h), tflite-runtime 2.14 does not.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

from tensorflow.lite.python import schema_py_generated as schema

from edgefl_converters.flatbuffer.dependencies import CALLS, needs_of
from edgefl_converters.flatbuffer.graph_index import GraphIndex
from edgefl_converters.flatbuffer.pass_context import PassContext
from edgefl_converters.flatbuffer.passes.base import register_pass
from edgefl_converters.flatbuffer.tensor_sizes import LARGE, bytes_of

__all__ = ["METADATA_NAME", "control_edges", "keep_order", "serialized"]

METADATA_NAME = "model_control_dependencies"

_VERSION = 1

_Operator = schema.BuiltinOperator
_NEVER_DELEGATED = {
    getattr(_Operator, name)
    for name in (
        *("CAST", "EQUAL", "GATHER", "GATHER_ND", "GREATER", "GREATER_EQUAL", "LESS", "LESS_EQUAL", "LOG_SOFTMAX"),
        *("NOT_EQUAL", "ONE_HOT", "SCATTER_ND", "SELECT", "SELECT_V2", "TILE"),
    )
}
"""Ops that XNNPACK does not take. Kept in order amid those that it takes, they would part them."""


# It says in what order all ops lie in the end.
@register_pass("control_dependencies", after="rematerialising")
def keep_order(context: PassContext) -> None:
    """Writes the order in which ops lie now; passes that move or add ops come before."""
    file = context.file
    edges = [control_edges(context.index(subgraph), file.builtin) for subgraph in file.subgraphs]
    file.set_metadata(METADATA_NAME, serialized(edges))


def control_edges(index: GraphIndex, builtin: Callable[[Any], int]) -> list[tuple[int, int]]:
    """Pairs of places in the order of ops: the first must have run before the second may.

    The metadata replaces what a runtime assumes without it, that ops on variables keep their order. What needs a
    variable's value runs before the op that makes its next one, which may write it there.

    Args:
        index: of the subgraph.
        builtin: the builtin operator of an op.
    """
    subgraph, edges = index.subgraph, set[tuple[int, int]]()
    for place, needed in enumerate(needs_of(index, builtin)):
        given = {index.made_at.get(tensor) for tensor in index.inputs[place]}
        edges |= {(before, place) for before in needed if before not in given}
    stateful, large = [], []
    for place, operator in enumerate(index.operators):
        if builtin(operator) in CALLS or _handles(subgraph, operator):
            stateful.append(place)
        if builtin(operator) not in _NEVER_DELEGATED and any(
            bytes_of(subgraph, tensor) >= LARGE for tensor in _tensors(operator)
        ):
            large.append(place)
    return sorted({*edges, *pairwise(stateful), *pairwise(large)})


def serialized(edges: Sequence[Sequence[tuple[int, int]]]) -> bytes:
    """The metadata for the edges of all subgraphs."""
    data = bytearray(_varint(_VERSION) + _varint(len(edges)))
    for of_subgraph in edges:
        data += _varint(len(of_subgraph))
        for edge in of_subgraph:
            for place in edge:
                data += _varint(2 * place)  # zigzag: odd ones are negative
    return bytes(data)


def _tensors(operator: Any) -> list[int]:
    return [int(tensor) for tensor in (*operator.inputs, *operator.outputs) if tensor >= 0]


def _handles(subgraph: Any, operator: Any) -> bool:
    return any(subgraph.tensors[tensor].type == schema.TensorType.RESOURCE for tensor in _tensors(operator))


def _varint(number: int) -> bytes:
    data = bytearray()
    while number >= 1 << 7:
        data.append(number % (1 << 7) + (1 << 7))
        number >>= 7
    return bytes([*data, number])
