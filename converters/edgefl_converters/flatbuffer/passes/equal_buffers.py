"""Constants with equal content lie in one buffer; parameters keep theirs."""

from __future__ import annotations

import hashlib

import numpy as np

from edgefl_converters.flatbuffer.pass_context import PassContext
from edgefl_converters.flatbuffer.passes.base import register_pass

__all__ = ["share_equal_buffers"]


@register_pass("equal_buffers", after="own_buffers")
def share_equal_buffers(context: PassContext) -> None:
    """Lets all constants with the same bytes refer to the first of their buffers."""
    file, owned = context.file, set(context.buffers.values())
    first: dict[bytes, int] = {}
    digests: dict[int, bytes] = {}
    for subgraph in file.subgraphs:
        for tensor in subgraph.tensors:
            data = file.model.buffers[tensor.buffer].data
            if tensor.buffer not in owned and data is not None and len(data):
                if tensor.buffer not in digests:
                    digests[tensor.buffer] = hashlib.sha256(np.ascontiguousarray(data, np.uint8).data).digest()
                tensor.buffer = first.setdefault(digests[tensor.buffer], tensor.buffer)
