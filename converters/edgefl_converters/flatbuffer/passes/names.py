"""Names of tensors and functions go: signatures name what a caller needs, and the others depend on the trace."""

from __future__ import annotations

from edgefl_converters.flatbuffer.pass_context import PassContext
from edgefl_converters.flatbuffer.passes.base import register_pass

__all__ = ["drop_names"]


@register_pass("names", after="control_dependencies", required=True)
def drop_names(context: PassContext) -> None:
    """Removes the names of all tensors and subgraphs."""
    for subgraph in context.file.subgraphs:
        subgraph.name = None
        for tensor in subgraph.tensors:
            tensor.name = None
