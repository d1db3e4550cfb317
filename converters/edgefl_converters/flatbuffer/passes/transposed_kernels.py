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
from edgefl_converters.flatbuffer.pass_context import PassContext
from edgefl_converters.flatbuffer.tensor_index import uses_of

__all__ = ["transpose_kernels"]

_Operator = schema.BuiltinOperator

_WIDER = 4
"""How many times as many outputs as rows make it worth it: with fewer, turning the batch costs what packing the kernel
did, and tflite-runtime 2.14, where nothing is gained, takes 1.1 times as long."""

_TILE, _IDLE = 32, 8
"""Columns of a product that XNNPACK makes at once, and how many of them may be idle. Rows of the batch become
columns: 10 cost as much as 32."""


class _Update(NamedTuple):
    """The plain step of a kernel in `train`: kernel - batch^T x gradient."""

    kernel: str
    product: Any
    difference: Any


def transpose_kernels(context: PassContext) -> None:
    """Holds kernels transposed that `train` uses only for ``[M, K] x [K, N]`` and to subtract a product from them.

    `train` is the first subgraph, and each makes the handles that it uses.
    """
    file = context.file
    train = file.subgraphs[0]
    updates = list(_updates(_Uses(train, file)))
    for subgraph in file.subgraphs:
        _Rewriting(subgraph, file, updates if subgraph is train else [], {each.kernel for each in updates})


class _Uses:
    """Ops of a subgraph by what they read and write."""

    def __init__(self, subgraph: Any, file: FlatModel) -> None:
        self.subgraph, self._file = subgraph, file
        self.made_by, self.read_by = uses_of(subgraph)

    def shape(self, tensor: int) -> list[int]:
        return [int(size) for size in self.subgraph.tensors[tensor].shape]

    def is_a(self, operator: Any, kind: int) -> bool:
        return operator is not None and self._file.builtin(operator) == kind

    def variable(self, operator: Any) -> str:
        """The name of the variable that an op reads or assigns."""
        return str(self.made_by[int(operator.inputs[0])].builtinOptions.sharedName)

    def only_for(self, tensor: int, *operators: Any) -> bool:
        """Whether an op reads a tensor only as one of some, and nobody is given it."""
        used = sorted(map(id, self.read_by[tensor]))
        return used == sorted(map(id, operators)) and tensor not in map(int, self.subgraph.outputs)

    def is_product(self, operator: Any, *, left_transposed: bool) -> bool:
        """Whether an op is a product of two matrices."""
        return (
            self.is_a(operator, _Operator.BATCH_MATMUL)
            and (operator.builtinOptions.adjX, operator.builtinOptions.adjY) == (left_transposed, False)
            and all(len(self.shape(int(tensor))) == 2 for tensor in operator.inputs)
        )


def _updates(uses: _Uses) -> Iterator[_Update]:
    """The updates of all kernels that are better transposed."""
    for assignment in uses.subgraph.operators:
        if not uses.is_a(assignment, _Operator.ASSIGN_VARIABLE):
            continue
        difference: Any = uses.made_by.get(int(assignment.inputs[1]))
        if not uses.is_a(difference, _Operator.SUB) or difference.builtinOptions.fusedActivationFunction:
            continue
        kernel, gradient = map(int, difference.inputs)
        reading: Any = uses.made_by.get(kernel)
        product: Any = uses.made_by.get(gradient)
        forward = uses.read_by[kernel][0]
        if (
            uses.is_a(reading, _Operator.READ_VARIABLE)
            and uses.variable(reading) == uses.variable(assignment)
            and uses.is_product(product, left_transposed=True)
            and uses.is_product(forward, left_transposed=False)
            and int(forward.inputs[1]) == kernel
            and uses.only_for(kernel, forward, difference)
            and uses.only_for(gradient, difference)
            and uses.only_for(int(difference.outputs[0]), assignment)
            and uses.shape(kernel) == uses.shape(gradient)
            and _is_worth_it(uses.shape(int(forward.inputs[0]))[0], uses.shape(kernel)[1])
        ):
            yield _Update(uses.variable(reading), product, difference)


def _is_worth_it(rows: int, outputs: int) -> bool:
    return outputs >= _WIDER * rows and -rows % _TILE <= _IDLE


class _Rewriting:
    """Makes one subgraph read and assign kernels that are held transposed."""

    def __init__(self, subgraph: Any, file: FlatModel, updates: Sequence[_Update], kernels: set[str]) -> None:
        self._subgraph, self._file, self._uses = subgraph, file, _Uses(subgraph, file)
        self._held: dict[int, int] = {}
        """Values of kernels, and the tensors that have them transposed."""
        self._products = {id(each.product) for each in updates}
        self._differences = {id(each.difference) for each in updates}
        subgraph.operators = [new for old in subgraph.operators for new in self._rewrite(old, kernels)]

    def _rewrite(self, operator: Any, kernels: set[str]) -> Iterator[Any]:
        uses = self._uses
        if uses.is_a(operator, _Operator.READ_VARIABLE) and uses.variable(operator) in kernels:
            yield from self._read(operator)
        elif uses.is_a(operator, _Operator.ASSIGN_VARIABLE) and uses.variable(operator) in kernels:
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
            for each in self._uses.read_by[value]
        ):
            yield self._transpose(self._held[value], value)

    def _assign(self, operator: Any) -> Iterator[Any]:
        handle, value = map(int, operator.inputs)
        if value not in self._held:
            yield self._transpose(value, self._held_as(value))
        operator.inputs = [handle, self._held[value]]
        yield operator

    def _is_forward(self, operator: Any) -> bool:
        return self._uses.is_product(operator, left_transposed=False) and int(operator.inputs[1]) in self._held

    def _held_as(self, value: int) -> int:
        self._held[value] = self._turned(value)
        return self._held[value]

    def _turned(self, tensor: int) -> int:
        """A new tensor for a matrix, transposed."""
        turned = copy.copy(self._subgraph.tensors[tensor])
        turned.shape, turned.shapeSignature, turned.buffer = self._uses.shape(tensor)[::-1], None, 0
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
