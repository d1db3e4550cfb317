"""Each parameter starts from a buffer of its own with its initial value, which nothing else uses."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import numpy as np
from tensorflow.lite.python import schema_py_generated as schema

from edgefl.errors import UnsupportedModelError, listed
from edgefl_converters.flatbuffer.file import FlatModel
from edgefl_converters.flatbuffer.object_form import append, text_of
from edgefl_converters.flatbuffer.pass_context import PassContext
from edgefl_converters.flatbuffer.passes.base import register_pass

__all__ = ["give_own_buffers"]


# Before equal buffers are shared: a parameter keeps its own.
@register_pass("own_buffers", after="frozen_constants", required=True)
def give_own_buffers(context: PassContext) -> None:
    """Gives the parameters their buffers, and says in the context which.

    Raises:
        UnsupportedModelError: the file initialises a parameter in no known way.
    """
    values, file = context.initial_values, context.file
    for subgraph, operator, name in _initialisers(file):
        if name not in values:
            continue
        tensor = copy.copy(subgraph.tensors[operator.inputs[1]])
        tensor.buffer = file.add_buffer(np.ascontiguousarray(values[name]))
        operator.inputs = [operator.inputs[0], append(subgraph.tensors, tensor)]
        context.buffers[name] = tensor.buffer
    missing = sorted(set(values) - set(context.buffers))
    if missing:
        raise UnsupportedModelError(f"The converted file does not initialise the variables {listed(missing)}.")


def _initialisers(file: FlatModel) -> Iterator[tuple[Any, Any, str]]:
    """Every assignment in the initialiser, with the variable's shared name."""
    for _, subgraph in file.initialiser_subgraphs():
        names: dict[int, str] = {}
        for operator in subgraph.operators:
            builtin = file.builtin(operator)
            if builtin == schema.BuiltinOperator.VAR_HANDLE:
                names[int(operator.outputs[0])] = text_of(operator.builtinOptions.sharedName)
            elif builtin == schema.BuiltinOperator.ASSIGN_VARIABLE:
                yield subgraph, operator, names[int(operator.inputs[0])]
