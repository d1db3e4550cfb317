"""Kernels of first dense layers lie transposed in their variables, in a converted file.

XNNPACK packs the right side of a product anew at every call, so the larger matrix should be on the left. Only the
output of a first layer and its own update need its kernel: held as ``[N, K]`` it is on the left of the one, and for the
other the gradient of the output is transposed, not the batch. A step of the 2NN with 32 rows takes 0.86 of the time on
ai-edge-litert, 1.05 on tflite-runtime 2.14. Only the variable is transposed: signatures, the manifest and the initial
values in the file have the kernel as Keras does.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from tensorflow.lite.python import schema_py_generated as schema

from edgefl_converters.flatbuffer.file import FlatModel
from edgefl_converters.flatbuffer.graph_index import GraphIndex
from edgefl_converters.flatbuffer.pass_context import PassContext
from edgefl_converters.flatbuffer.passes.base import register_pass

__all__ = ["transpose_kernels"]

_Operator = schema.BuiltinOperator

_WIDER = 4
"""So many times as many outputs as rows make it worth it: with fewer, turning the batch costs what packing the kernel
did, and tflite-runtime 2.14, where nothing is gained, takes 1.1 times as long."""

_TILE, _IDLE = 32, 8
"""Columns of a product that XNNPACK makes at once, and how many of them may be idle. Rows of the batch become
columns: 10 cost as much as 32."""


class _Update(NamedTuple):
    """The plain step of a kernel in `train`: kernel - batch^T x gradient."""

    kernel: str
    product: Any
    difference: Any


# It looks at the first subgraph, and at kernels that are read once.
@register_pass("transposed_kernels", after="primary_signature", runtime="ai-edge-litert")
def transpose_kernels(context: PassContext) -> None:
    """Holds kernels transposed that `train` uses only for ``[M, K] x [K, N]`` and to subtract a product from them.

    `train` is the first subgraph, and each makes the handles that it uses.
    """
    file = context.file
    train = file.subgraphs[0]
    updates = list(_updates(_Matrices(context.index(train), file)))
    for subgraph in file.subgraphs:
        matrices = _Matrices(context.index(subgraph), file)
        _Rewriting(matrices, file, updates if subgraph is train else [], {each.kernel for each in updates})


class _Matrices:
    """Tells of the ops of a subgraph whether they are steps of a dense layer, and of which variable."""

    def __init__(self, index: GraphIndex, file: FlatModel) -> None:
        self.index, self.subgraph, self._file = index, index.subgraph, file

    def shape(self, tensor: int) -> list[int]:
        return [int(size) for size in self.subgraph.tensors[tensor].shape]

    def is_a(self, operator: Any, kind: int) -> bool:
        return operator is not None and self._file.builtin(operator) == kind

    def variable(self, operator: Any) -> str:
        """The name of the variable that an op reads or assigns."""
        return str(self.index.maker(int(operator.inputs[0])).builtinOptions.sharedName)

    def only_for(self, tensor: int, *operators: Any) -> bool:
        """Tells whether an op reads a tensor only as one of some, and nobody is given it."""
        used = sorted(map(id, self.index.readers(tensor)))
        return used == sorted(map(id, operators)) and tensor not in map(int, self.subgraph.outputs)

    def is_product(self, operator: Any, *, left_transposed: bool) -> bool:
        """Tells whether an op is a product of two matrices."""
        return (
            self.is_a(operator, _Operator.BATCH_MATMUL)
            and (operator.builtinOptions.adjX, operator.builtinOptions.adjY) == (left_transposed, False)
            and all(len(self.shape(int(tensor))) == 2 for tensor in operator.inputs)
        )


def _updates(matrices: _Matrices) -> Iterator[_Update]:
    """The updates of all kernels that are better transposed."""
    for assignment in matrices.subgraph.operators:
        if not matrices.is_a(assignment, _Operator.ASSIGN_VARIABLE):
            continue
        difference: Any = matrices.index.maker(int(assignment.inputs[1]))
        if not matrices.is_a(difference, _Operator.SUB) or difference.builtinOptions.fusedActivationFunction:
            continue
        kernel, gradient = map(int, difference.inputs)
        reading: Any = matrices.index.maker(kernel)
        product: Any = matrices.index.maker(gradient)
        forward = matrices.index.readers(kernel)[0]
        if (
            matrices.is_a(reading, _Operator.READ_VARIABLE)
            and matrices.variable(reading) == matrices.variable(assignment)
            and matrices.is_product(product, left_transposed=True)
            and matrices.is_product(forward, left_transposed=False)
            and int(forward.inputs[1]) == kernel
            and matrices.only_for(kernel, forward, difference)
            and matrices.only_for(gradient, difference)
            and matrices.only_for(int(difference.outputs[0]), assignment)
            and matrices.shape(kernel) == matrices.shape(gradient)
            and _is_worth_it(matrices.shape(int(forward.inputs[0]))[0], matrices.shape(kernel)[1])
        ):
            yield _Update(matrices.variable(reading), product, difference)


def _is_worth_it(rows: int, outputs: int) -> bool:
    return outputs >= _WIDER * rows and -rows % _TILE <= _IDLE


class _Rewriting:
    """Makes one subgraph read and assign kernels that are held transposed."""

    def __init__(self, matrices: _Matrices, file: FlatModel, updates: Sequence[_Update], kernels: set[str]) -> None:
        subgraph = matrices.subgraph
        self._subgraph, self._file, self._matrices = subgraph, file, matrices
        self._held: dict[int, int] = {}
        """Values of kernels, and the tensors that have them transposed."""
        self._products = {id(each.product) for each in updates}
        self._differences = {id(each.difference) for each in updates}
        subgraph.operators = [new for old in subgraph.operators for new in self._rewrite(old, kernels)]

    def _rewrite(self, operator: Any, kernels: set[str]) -> Iterator[Any]:
        matrices = self._matrices
        if matrices.is_a(operator, _Operator.READ_VARIABLE) and matrices.variable(operator) in kernels:
            yield from self._read(operator)
        elif matrices.is_a(operator, _Operator.ASSIGN_VARIABLE) and matrices.variable(operator) in kernels:
            yield from self._assign(operator)
        elif id(operator) in self._products:
            batch, gradient = map(int, operator.inputs)
            operator.inputs, operator.outputs = [gradient, batch], [self._held_as(int(operator.outputs[0]))]
            yield operator
        elif id(operator) in self._differences:
            operator.inputs = [self._held[int(tensor)] for tensor in operator.inputs]
            operator.outputs = [self._held_as(int(operator.outputs[0]))]
            yield operator
        elif self._is_forward(operator):
            batch, kernel = map(int, operator.inputs)
            output = int(operator.outputs[0])
            columns, result = self._turned(batch), self._turned(output)
            yield self._transpose(batch, columns)
            operator.inputs, operator.outputs = [self._held[kernel], columns], [result]
            yield operator
            yield self._transpose(result, output)
        else:
            yield operator

    def _read(self, operator: Any) -> Iterator[Any]:
        value = int(operator.outputs[0])
        operator.outputs = [self._held_as(value)]
        yield operator
        if value in map(int, self._subgraph.outputs) or not all(
            id(each) in self._differences or (self._is_forward(each) and int(each.inputs[0]) != value)
            for each in self._matrices.index.readers(value)
        ):
            yield self._transpose(self._held[value], value)

    def _assign(self, operator: Any) -> Iterator[Any]:
        handle, value = map(int, operator.inputs)
        if value not in self._held:
            yield self._transpose(value, self._held_as(value))
        operator.inputs = [handle, self._held[value]]
        yield operator

    def _is_forward(self, operator: Any) -> bool:
        return self._matrices.is_product(operator, left_transposed=False) and int(operator.inputs[1]) in self._held

    def _held_as(self, value: int) -> int:
        self._held[value] = self._turned(value)
        return self._held[value]

    def _turned(self, tensor: int) -> int:
        """A new tensor for a matrix, transposed."""
        turned = copy.copy(self._subgraph.tensors[tensor])
        turned.shape, turned.shapeSignature, turned.buffer = self._matrices.shape(tensor)[::-1], None, 0
        self._subgraph.tensors.append(turned)
        return len(self._subgraph.tensors) - 1

    def _transpose(self, source: int, target: int) -> Any:
        operator = schema.OperatorT()
        operator.opcodeIndex = self._file.operator_code(_Operator.TRANSPOSE)
        operator.inputs = [source, self._file.integers(self._subgraph, [1, 0])]
        operator.outputs = [target]
        operator.builtinOptionsType = schema.BuiltinOptions.TransposeOptions
        operator.builtinOptions = schema.TransposeOptionsT()
        return operator
