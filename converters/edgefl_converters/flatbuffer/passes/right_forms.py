"""Ops in the form that tflite-runtime 2.14 computes rightly, see `targets.wrong_kernels`.

Lowerings take care of what they emit. The converter of TensorFlow makes such forms too: it takes a transposition into a
product behind it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from tensorflow.lite.python import schema_py_generated as schema

from edgefl_converters.flatbuffer.file import FlatModel
from edgefl_converters.flatbuffer.object_form import append
from edgefl_converters.flatbuffer.pass_context import PassContext
from edgefl_converters.flatbuffer.passes.base import register_pass
from edgefl_converters.targets import wrong_kernels

__all__ = ["rewrite_all_forms", "rewrite_forms"]

_BUILTIN_RANK = 4
"""Dimensions that the first version of TRANSPOSE takes."""


@register_pass("right_forms", after="flat_products", required=True, runtime=wrong_kernels.RUNTIME)
def rewrite_all_forms(context: PassContext) -> None:
    """Rewrites a file that is on its way through the passes."""
    rewrite_forms(context.file)


def rewrite_forms(file: FlatModel) -> bool:
    """Transposes left sides of products by ops of their own, and reverses one axis after the other.

    Args:
        file: changed in place.

    Returns:
        Whether there was anything to rewrite.
    """
    changed = False
    for subgraph in file.subgraphs:
        operators: list[Any] = []
        for operator in subgraph.operators:
            kind = file.builtin(operator)
            before: list[Any] = []
            if kind == schema.BuiltinOperator.BATCH_MATMUL:
                before = _untransposed(file, subgraph, operator)
            elif kind == schema.BuiltinOperator.REVERSE_V2:
                before = _one_by_one(file, subgraph, operator)
            operators += [*before, operator]
            changed = changed or bool(before)
        subgraph.operators = operators
    return changed


def _untransposed(file: FlatModel, subgraph: Any, product: Any) -> list[Any]:
    """The op that transposes the left side beforehand; none where it may be left to the product."""
    left, right = (subgraph.tensors[int(each)] for each in product.inputs)
    if not wrong_kernels.repeats_beside_transposed(product.builtinOptions.adjX, _shape(left), _shape(right)):
        return []
    rank = len(left.shape)
    order = [*range(rank - 2), rank - 1, rank - 2]
    version = 1 if left.type != schema.TensorType.INT8 else 2
    operator = schema.OperatorT()
    operator.opcodeIndex = file.operator_code(schema.BuiltinOperator.TRANSPOSE, version if rank <= _BUILTIN_RANK else 5)
    operator.builtinOptionsType = schema.BuiltinOptions.TransposeOptions
    operator.builtinOptions = schema.TransposeOptionsT()
    operator.inputs = [int(product.inputs[0]), file.integers(subgraph, order)]
    operator.outputs = [_like(subgraph, left, order)]
    product.inputs = [operator.outputs[0], int(product.inputs[1])]
    product.builtinOptions.adjX = False
    return [operator]


def _one_by_one(file: FlatModel, subgraph: Any, reversal: Any) -> list[Any]:
    """Reversals of all axes but the last one, which is left to the op itself; none where it has only one."""
    axes = _integers(file, subgraph.tensors[int(reversal.inputs[1])])
    if not wrong_kernels.reverses_several(len(axes)):
        return []
    before = []
    for axis in axes[:-1]:
        operator = schema.OperatorT()
        operator.opcodeIndex = reversal.opcodeIndex
        operator.builtinOptionsType, operator.builtinOptions = reversal.builtinOptionsType, reversal.builtinOptions
        source = int(reversal.inputs[0])
        operator.inputs = [source, file.integers(subgraph, [axis])]
        operator.outputs = [_like(subgraph, subgraph.tensors[source])]
        reversal.inputs = [operator.outputs[0], int(reversal.inputs[1])]
        before.append(operator)
    reversal.inputs = [int(reversal.inputs[0]), file.integers(subgraph, axes[-1:])]
    return before


def _integers(file: FlatModel, tensor: Any) -> list[int]:
    data = file.model.buffers[tensor.buffer].data
    return [] if data is None else np.frombuffer(bytes(data), np.int32).tolist()


def _like(subgraph: Any, tensor: Any, order: list[int] | None = None) -> int:
    """Adds a tensor of the same kind, its dimensions in another order, and returns its index."""
    made = schema.TensorT()
    made.type, made.quantization, made.buffer = tensor.type, tensor.quantization, 0
    made.shape = [int(tensor.shape[axis]) for axis in order or range(len(tensor.shape))]
    if tensor.shapeSignature is not None:
        made.shapeSignature = [int(tensor.shapeSignature[axis]) for axis in order or range(len(tensor.shape))]
    return append(subgraph.tensors, made)


def _shape(tensor: Any) -> list[int]:
    shape = tensor.shape if tensor.shapeSignature is None else tensor.shapeSignature
    return [int(size) for size in shape]
