"""Large frozen weights are stored in fewer bytes, before names are dropped; see `frozen_storage` for the formats."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from tensorflow.lite.python import schema_py_generated as schema

from edgefl_converters.flatbuffer.file import FlatModel
from edgefl_converters.flatbuffer.frozen_storage import DYNAMIC, StoredConstant, store
from edgefl_converters.flatbuffer.object_form import append, text_of
from edgefl_converters.flatbuffer.pass_context import PassContext
from edgefl_converters.flatbuffer.passes.base import register_pass
from edgefl_converters.flatbuffer.schema_writers import SharedQuantization

__all__ = ["store_frozen_constants"]


class _Stored(NamedTuple):
    """A constant in fewer bytes, as tensors and ops refer to it."""

    buffer: int
    dtype: int
    version: int
    quantization: SharedQuantization | None


@register_pass("frozen_constants", after="flat_products", required=True)
def store_frozen_constants(context: PassContext) -> None:
    """Stores large float32 constants of frozen layers as the context says, and counts them there."""
    if context.storage in (None, DYNAMIC):
        return
    file = context.file
    initialisers = {index for index, _ in file.initialiser_subgraphs()}
    known: dict[tuple[int, tuple[int, ...]], _Stored | None] = {}
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
            each for source in sorted(wanted) if (each := _restore(file, subgraph, source, context.storage, known))
        ]
        subgraph.operators = [*restoring, *subgraph.operators]
        context.stored += len(restoring)


def _restore(
    file: FlatModel,
    subgraph: Any,
    source: int,
    storage: str,
    known: dict[tuple[int, tuple[int, ...]], _Stored | None],
) -> Any:
    """Makes a constant tensor the output of a DEQUANTIZE op, which is returned; None where it stays as it is."""
    tensor = subgraph.tensors[source]
    data = file.model.buffers[tensor.buffer].data
    if tensor.type != schema.TensorType.FLOAT32 or data is None or not len(data):
        return None
    key = int(tensor.buffer), tuple(map(int, tensor.shape))
    if key not in known:
        known[key] = _stored(file, np.asarray(data, np.uint8).view(np.float32).reshape(tensor.shape), storage)
    stored = known[key]
    if stored is None:
        return None
    made = schema.TensorT()
    made.type, made.shape, made.buffer = stored.dtype, list(tensor.shape), stored.buffer
    made.quantization = stored.quantization
    constant = append(subgraph.tensors, made)
    tensor.buffer = 0
    operator = schema.OperatorT()
    operator.opcodeIndex = file.operator_code(schema.BuiltinOperator.DEQUANTIZE, stored.version)
    operator.inputs, operator.outputs = [constant], [source]
    operator.builtinOptionsType = schema.BuiltinOptions.DequantizeOptions
    operator.builtinOptions = schema.DequantizeOptionsT()
    return operator


def _stored(file: FlatModel, constant: NDArray[np.float32], storage: str) -> _Stored | None:
    """Stores a constant for all signatures that know it; None where it stays as it is."""
    stored = store(constant, storage)
    if stored is None:
        return None
    buffer = file.add_buffer(np.ascontiguousarray(stored.values))
    if not stored.scales.size:
        return _Stored(buffer, schema.TensorType.FLOAT16, 3, None)
    return _Stored(buffer, schema.TensorType.INT8, 5 if stored.scales.size > 1 else 2, _scales(stored))


def _scales(stored: StoredConstant) -> SharedQuantization:
    quantization = SharedQuantization()
    quantization.scale = stored.scales.tolist()
    quantization.zeroPoint = [0] * stored.scales.size
    quantization.quantizedDimension = stored.axis
    return quantization
