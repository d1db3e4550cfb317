"""Says what a model file asks of a device: operations of a step, and memory."""

from __future__ import annotations

from dataclasses import dataclass

from edgefl.inspecting.flops import flops
from edgefl.inspecting.graph import Graph, read_graph
from edgefl.model_file import ModelFile

__all__ = ["Cost", "cost_of"]

_DEVICE_BYTES = 57_000_000
"""Resident memory of a device that waits for tasks (docs/performance.md): Python, numpy, the interpreter, HTTP, TLS."""
_BYTES = {
    "float64": 8,
    "int64": 8,
    "uint64": 8,
    "float16": 2,
    "bfloat16": 2,
    "int16": 2,
    "int8": 1,
    "uint8": 1,
    "bool": 1,
}
_VECTORS = 3
"""The weights in the interpreter's variables, those that were received, and the delta."""


@dataclass(frozen=True)
class Cost:
    """The cost of a model's training.

    Attributes:
        flops: floating-point operations of a step; it is always a whole batch of the file.
        memory_bytes: about as many as a device needs for a task.
    """

    flops: int
    memory_bytes: int


def cost_of(file: ModelFile) -> Cost:
    """Reads what a model file costs.

    Memory is an estimate: what a waiting device has, the file, the vectors, and the tensors of a step that are needed
    at one time. What an interpreter adds, or saves by sharing memory, is not in it.

    Raises:
        ModelFileError: its graphs cannot be read.
    """
    graph = read_graph(file)
    vectors = 4 * _VECTORS * file.manifest.layout.size
    memory = _DEVICE_BYTES + len(file.data) + vectors + _live_bytes(graph, graph.signatures["train"])
    return Cost(flops(graph, "train")["total"], memory)


def _live_bytes(graph: Graph, subgraph: int) -> int:
    """The most bytes of computed tensors that are needed at one time when the ops run in their order."""
    tensors = graph.tensors[subgraph]
    first: dict[int, int] = {}
    last: dict[int, int] = {}
    for place, operator in enumerate(graph.operators[subgraph]):
        for index in operator.outputs:
            first.setdefault(index, place)
        for index in (*operator.inputs, *operator.outputs):
            last[index] = place
    steps = len(graph.operators[subgraph])
    changes = [0] * (steps + 1)
    for index, place in first.items():
        size = tensors[index].size * _BYTES.get(tensors[index].dtype, 4)
        changes[place] += size
        changes[last[index] + 1] -= size
    most = now = 0
    for change in changes:
        now += change
        most = max(most, now)
    return most
