"""Says what the bytes of a model file are for."""

from __future__ import annotations

from edgefl.inspecting.graph import Graph
from edgefl.model_file import ModelFile

__all__ = ["sizes_by_role"]

_INDICES = ("int32", "int64", "uint32", "uint64", "int16", "uint16")


def sizes_by_role(file: ModelFile, graph: Graph) -> dict[str, int]:
    """Splits a file's bytes by what they are for; the parts add up to the whole file.

    Args:
        file: the model file.
        graph: its graphs.

    Returns:
        Bytes of ``weights`` and ``statistics`` (their initial values), ``optimizer`` (initial values of slots and
        counters), ``constants float32`` and so on by type (frozen weights, and numbers that the graph needs), ``index
        tables`` (constant integers: gathers, shapes, axes), ``manifest``, and ``graph`` (ops, tensors, signatures).
        Buffers that several tensors share count once; roles without a byte are left out.
    """
    roles = {file.manifest_buffer: "manifest"}
    for parameter in file.manifest.parameters:
        roles[parameter.buffer] = "weights" if parameter.role == "weight" else "statistics"
    for buffer in _initial_values(graph):
        roles.setdefault(buffer, "optimizer")
    for tensors in graph.tensors:
        for tensor in tensors:
            roles.setdefault(tensor.buffer, _constants(tensor.dtype))
    sizes: dict[str, int] = {}
    for buffer, size in enumerate(graph.buffer_sizes):
        if size:
            role = roles.get(buffer, "graph")
            sizes[role] = sizes.get(role, 0) + size
    sizes["graph"] = sizes.get("graph", 0) + len(file.data) - sum(graph.buffer_sizes)
    return dict(sorted(sizes.items(), key=lambda item: -item[1]))


def _constants(dtype: str) -> str:
    return "index tables" if dtype in _INDICES else f"constants {dtype}"


def _initial_values(graph: Graph) -> set[int]:
    """Buffers from which an initialiser fills variables, also by computing them."""
    found: set[int] = set()
    for subgraph in graph.initialisers():
        tensors = graph.tensors[subgraph]
        for operator in graph.operators[subgraph]:
            found |= {tensors[index].buffer for index in operator.inputs if index >= 0}
    return {buffer for buffer in found if graph.buffer_sizes[buffer]}
