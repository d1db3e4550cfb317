"""Branches and loop bodies that return a tensor twice return a copy: both runtimes hand a tensor over only once."""

from __future__ import annotations

from typing import Any

from tensorflow.lite.python import schema_py_generated as schema

from edgefl_converters.flatbuffer.file import FlatModel
from edgefl_converters.flatbuffer.object_form import append
from edgefl_converters.flatbuffer.pass_context import PassContext
from edgefl_converters.flatbuffer.passes.base import register_pass

__all__ = ["separate_outputs"]


@register_pass("repeated_outputs", after="repeated_constants", required=True)
def separate_outputs(context: PassContext) -> None:
    """Copies repeated outputs of subgraphs that no signature begins with."""
    file = context.file
    entries = {each.subgraphIndex for each in file.model.signatureDefs}
    for index, subgraph in enumerate(file.subgraphs):
        if index in entries:
            continue
        outputs: list[int] = []
        for output in map(int, subgraph.outputs):
            outputs.append(_copy_tensor(file, subgraph, output) if output in outputs else output)
        subgraph.outputs = outputs


def _copy_tensor(file: FlatModel, subgraph: Any, source: int) -> int:
    """Adds an op that gives its input back: the maximum of a value and itself."""
    original = subgraph.tensors[source]
    output = schema.TensorT()
    output.type, output.shape, output.buffer = original.type, original.shape, 0
    operator = schema.OperatorT()
    if original.type == schema.TensorType.BOOL:
        operator.opcodeIndex = file.operator_code(schema.BuiltinOperator.LOGICAL_OR)
        operator.builtinOptionsType = schema.BuiltinOptions.LogicalOrOptions
        operator.builtinOptions = schema.LogicalOrOptionsT()
    else:
        operator.opcodeIndex = file.operator_code(schema.BuiltinOperator.MAXIMUM)
        operator.builtinOptionsType = schema.BuiltinOptions.MaximumMinimumOptions
        operator.builtinOptions = schema.MaximumMinimumOptionsT()
    operator.inputs, operator.outputs = [source, source], [append(subgraph.tensors, output)]
    subgraph.operators = [*subgraph.operators, operator]
    return int(operator.outputs[0])
