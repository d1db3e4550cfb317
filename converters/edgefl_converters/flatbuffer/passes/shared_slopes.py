"""Slopes that all channels share, in a converted file: a frozen PReLU with one slope for all.

XNNPACK in tflite-runtime 2.14 takes a slope for each channel from where only one is, and reads on behind it: outputs
are then whatever lies there, infinities among it.
"""

from __future__ import annotations

import numpy as np
from tensorflow.lite.python import schema_py_generated as schema

from edgefl_converters.flatbuffer.pass_context import PassContext
from edgefl_converters.flatbuffer.passes.base import register_pass

__all__ = ["spread_shared_slopes"]


@register_pass("shared_slopes", after="flat_products", runtime="tflite-runtime")
def spread_shared_slopes(context: PassContext) -> None:
    """Writes a constant slope of PRELU once for each channel."""
    file = context.file
    for subgraph in file.subgraphs:
        for operator in subgraph.operators:
            if file.builtin(operator) != schema.BuiltinOperator.PRELU:
                continue
            channels = int(subgraph.tensors[int(operator.inputs[0])].shape[-1])
            slopes = subgraph.tensors[int(operator.inputs[1])]
            data = file.model.buffers[slopes.buffer].data
            shape = [int(size) for size in slopes.shape]
            if data is None or slopes.type != schema.TensorType.FLOAT32 or not shape or shape[-1] in (0, channels):
                continue
            values = np.frombuffer(np.asarray(data, np.uint8).tobytes(), np.float32).reshape(shape)
            spread = np.ascontiguousarray(np.broadcast_to(values, [*shape[:-1], channels]))
            own = file.constant(subgraph, slopes.type, list(spread.shape), spread.tobytes())
            operator.inputs = [int(operator.inputs[0]), own]
