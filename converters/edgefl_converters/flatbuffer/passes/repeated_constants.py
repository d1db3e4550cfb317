"""Constants that are assigned and hold one repeated number are computed instead of stored."""

from __future__ import annotations

from typing import Any

import numpy as np
from tensorflow.lite.python import schema_py_generated as schema

from edgefl_converters.flatbuffer.object_form import append, text_of
from edgefl_converters.flatbuffer.pass_context import PassContext
from edgefl_converters.flatbuffer.passes.base import register_pass

__all__ = ["compute_repeated_constants"]

_RESETTING = "reset_optimizer"
"""The signature that assigns constants, as the initialiser does."""
_FILL_FROM_BYTES = 512
"""Below this a constant is smaller than the op that would compute it."""
_ITEM_BYTES = {schema.TensorType.FLOAT32: 4, schema.TensorType.INT32: 4, schema.TensorType.INT64: 8}


@register_pass("repeated_constants", after="equal_buffers")
def compute_repeated_constants(context: PassContext) -> None:
    """Computes such constants in the initialiser and in the signature that resets the optimizer."""
    file = context.file
    indices = {index for index, _ in file.initialiser_subgraphs()}
    indices |= {each.subgraphIndex for each in file.model.signatureDefs if text_of(each.signatureKey) == _RESETTING}
    for index in sorted(indices):
        subgraph = file.subgraphs[index]
        filled: dict[int, int] = {}
        fills: list[Any] = []
        for operator in subgraph.operators:
            if file.builtin(operator) != schema.BuiltinOperator.ASSIGN_VARIABLE:
                continue
            source = int(operator.inputs[1])
            if source not in filled:
                fill = _fill(context, subgraph, source)
                if fill is None:
                    continue
                fills.append(fill)
                filled[source] = int(fill.outputs[0])
            operator.inputs = [operator.inputs[0], filled[source]]
        subgraph.operators = fills + list(subgraph.operators)


def _fill(context: PassContext, subgraph: Any, source: int) -> Any:
    """A FILL op that computes a constant tensor, or None where it is not worth it or not possible."""
    file = context.file
    tensor = subgraph.tensors[source]
    data = file.model.buffers[tensor.buffer].data
    if data is None or len(data) < _FILL_FROM_BYTES or tensor.type not in _ITEM_BYTES:
        return None
    if tensor.buffer in context.buffers.values():
        return None  # The initial value of a parameter is read from its buffer, whatever it is.
    items = np.asarray(data, np.uint8).reshape(-1, _ITEM_BYTES[tensor.type])
    if (items != items[0]).any():
        return None
    dims = file.integers(subgraph, tensor.shape)
    value = file.constant(subgraph, tensor.type, [], items[0].tobytes())
    output = schema.TensorT()
    output.type, output.shape, output.buffer = tensor.type, tensor.shape, 0
    operator = schema.OperatorT()
    operator.opcodeIndex = file.operator_code(schema.BuiltinOperator.FILL)
    operator.inputs, operator.outputs = [dims, value], [append(subgraph.tensors, output)]
    operator.builtinOptionsType = schema.BuiltinOptions.FillOptions
    operator.builtinOptions = schema.FillOptionsT()
    return operator
