"""Large frozen weights are stored in fewer bytes, before names are dropped; see `frozen_storage` for the formats."""

from __future__ import annotations

from typing import Any

import numpy as np
from tensorflow.lite.python import schema_py_generated as schema

from edgefl_converters.flatbuffer.file import FlatModel
from edgefl_converters.flatbuffer.frozen_storage import StoredConstant, store
from edgefl_converters.flatbuffer.object_form import text_of
from edgefl_converters.flatbuffer.pass_context import PassContext
from edgefl_converters.flatbuffer.passes.base import register_pass
from edgefl_converters.flatbuffer.schema_writers import SharedQuantization

__all__ = ["store_frozen_constants"]


@register_pass("frozen_constants", after="flat_products", required=True)
def store_frozen_constants(context: PassContext) -> None:
    """Stores large float32 constants of frozen layers as the context says, and counts them there."""
    if context.storage is None:
        return
    file = context.file
    initialisers = {index for index, _ in file.initialiser_subgraphs()}
    scales: dict[tuple[int, bytes], SharedQuantization] = {}
    for index, subgraph in enumerate(file.subgraphs):
        if index in initialisers:
            continue
        wanted = {
            int(source)
            for operator in subgraph.operators
            if len(operator.outputs) and context.frozen(text_of(subgraph.tensors[int(operator.outputs[0])].name or ""))
            for source in operator.inputs
            if source >= 0
        }
        restoring = [
            each for source in sorted(wanted) if (each := _restore(file, subgraph, source, context.storage, scales))
        ]
        subgraph.operators = [*restoring, *subgraph.operators]
        context.stored += len(restoring)


def _restore(
    file: FlatModel,
    subgraph: Any,
    source: int,
    storage: str,
    scales: dict[tuple[int, bytes], SharedQuantization],
) -> Any:
    """Makes a constant tensor the output of a DEQUANTIZE op, which is returned; None where it stays as it is."""
    tensor = subgraph.tensors[source]
    data = file.model.buffers[tensor.buffer].data
    if tensor.type != schema.TensorType.FLOAT32 or data is None or not len(data):
        return None
    stored = store(np.asarray(data, np.uint8).view(np.float32).reshape(tensor.shape), storage)
    if stored is None:
        return None
    dtype = schema.TensorType.INT8 if stored.scales.size else schema.TensorType.FLOAT16
    constant = file.constant(subgraph, dtype, list(tensor.shape), stored.values.tobytes())
    version = 3
    if stored.scales.size:
        subgraph.tensors[constant].quantization = _scales(stored, scales)
        version = 5 if stored.scales.size > 1 else 2
    tensor.buffer = 0
    operator = schema.OperatorT()
    operator.opcodeIndex = file.operator_code(schema.BuiltinOperator.DEQUANTIZE, version)
    operator.inputs, operator.outputs = [constant], [source]
    operator.builtinOptionsType = schema.BuiltinOptions.DequantizeOptions
    operator.builtinOptions = schema.DequantizeOptionsT()
    return operator


def _scales(stored: StoredConstant, known: dict[tuple[int, bytes], SharedQuantization]) -> SharedQuantization:
    """One object for all signatures that know a constant."""
    quantization = SharedQuantization()
    quantization.scale = stored.scales.tolist()
    quantization.zeroPoint = [0] * stored.scales.size
    quantization.quantizedDimension = stored.axis
    return known.setdefault((stored.axis, stored.scales.tobytes()), quantization)
