"""A pass from outside: the operands of every ADD change places, which changes the file and not what it computes."""

from __future__ import annotations

from tensorflow.lite.python import schema_py_generated as schema

from edgefl_converters.flatbuffer.pass_context import PassContext
from edgefl_converters.flatbuffer.passes import Pass

__all__ = ["SWAP_ADDENDS"]


def swap_addends(context: PassContext) -> None:
    file = context.file
    for subgraph in file.subgraphs:
        for operator in context.index(subgraph).operators:
            if file.builtin(operator) == schema.BuiltinOperator.ADD:
                left, right = operator.inputs
                operator.inputs = [right, left]


SWAP_ADDENDS = Pass("swap_addends", swap_addends, after="variable_reads")
