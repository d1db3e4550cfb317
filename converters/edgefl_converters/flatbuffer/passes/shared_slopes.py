"""Slopes that all channels share, in a converted file: a frozen PReLU with one slope for all.

XNNPACK in tflite-runtime 2.14 takes a slope for each channel from where only one is, and reads on behind it: outputs
are then whatever lies there, infinities among it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from tensorflow.lite.python import schema_py_generated as schema

from edgefl_converters.flatbuffer.file import FlatModel
from edgefl_converters.flatbuffer.pass_context import PassContext
from edgefl_converters.flatbuffer.passes.base import register_pass

__all__ = ["spread_shared_slopes", "spread_slopes"]


@register_pass("shared_slopes", after="flat_products", runtime="tflite-runtime")
def spread_shared_slopes(context: PassContext) -> None:
    """Writes a constant slope of PRELU once for each channel."""
    spread_slopes(context.file)


def spread_slopes(file: FlatModel) -> bool:
    """Does so in any file, also one for inference; tells whether there was such a slope."""
    changed = False
    for subgraph in file.subgraphs:
        for operator in subgraph.operators:
            if file.builtin(operator) != schema.BuiltinOperator.PRELU:
                continue
            channels = int(subgraph.tensors[int(operator.inputs[0])].shape[-1])
            values = _constant(file, subgraph, int(operator.inputs[1]))
            if values is None or not values.ndim or values.shape[-1] in (0, channels):
                continue
            spread = np.ascontiguousarray(np.broadcast_to(values, [*values.shape[:-1], channels]))
            own = file.constant(subgraph, schema.TensorType.FLOAT32, list(spread.shape), spread.tobytes())
            operator.inputs = [int(operator.inputs[0]), own]
            changed = True
    return changed


def _constant(file: FlatModel, subgraph: Any, index: int) -> NDArray[np.float32] | None:
    """The value of a constant in float32, also of one that is stored in float16; None for any other tensor."""
    tensor = subgraph.tensors[index]
    for operator in subgraph.operators:
        if file.builtin(operator) == schema.BuiltinOperator.DEQUANTIZE and int(operator.outputs[0]) == index:
            tensor = subgraph.tensors[int(operator.inputs[0])]
    data = file.model.buffers[tensor.buffer].data
    types = {schema.TensorType.FLOAT32: np.float32, schema.TensorType.FLOAT16: np.float16}
    if data is None or tensor.type not in types:
        return None
    shape = [int(size) for size in (() if tensor.shape is None else tensor.shape)]
    values = np.frombuffer(np.asarray(data, np.uint8).tobytes(), types[tensor.type])
    return values.reshape(shape).astype(np.float32)
