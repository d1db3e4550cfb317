"""Products with frozen kernels are computed in int8, in a converted file, where that is asked for.

XNNPACK in ai-edge-litert rounds what is multiplied with an int8 kernel to 8 bits itself, each row with a scale and a
zero point of its own, and takes a quarter of the time of float32 where processors have dot products of bytes. The
gradient of an input is such a product with the kernel transposed, except the first on the way back: the gradient of a
cross-entropy is one large number among thousands of small ones in each row, which would all be rounded to zero.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from tensorflow.lite.python import schema_py_generated as schema

from edgefl_converters.flatbuffer.file import FlatModel
from edgefl_converters.flatbuffer.frozen_storage import DYNAMIC, LEAST_ELEMENTS, quantized_rows
from edgefl_converters.flatbuffer.graph_index import GraphIndex
from edgefl_converters.flatbuffer.object_form import append, text_of
from edgefl_converters.flatbuffer.pass_context import PassContext
from edgefl_converters.flatbuffer.passes.base import register_pass
from edgefl_converters.flatbuffer.schema_writers import SharedQuantization
from edgefl_converters.flatbuffer.transpositions import exchange

__all__ = ["multiply_in_int8"]

_Operator, _Options, _Type = schema.BuiltinOperator, schema.BuiltinOptions, schema.TensorType
_LEFT, _RIGHT = 0, 1
_SCALE_FOR_EACH_OUTPUT = 12
"""The version of FULLY_CONNECTED whose kernels may have that."""
_OF_INT8 = 2
"""The version of GATHER and DEQUANTIZE that takes it."""


class _Kernel(NamedTuple):
    """A frozen matrix in int8, ``[outputs, inputs]``."""

    buffer: int
    quantization: SharedQuantization
    shape: tuple[int, ...]


class _Product(NamedTuple):
    """A product of rows and a frozen kernel: ``[inputs, outputs]`` on its right, ``[outputs, inputs]`` on its left."""

    operator: Any
    side: int
    form: bytes
    """Tells the kernel from others."""
    transposed: bytes
    """Likewise for its transpose."""


class _Table(NamedTuple):
    """Rows of numbers, each with a scale."""

    rows: int
    scales: int


# Before what is left of the kernels is put where it is read in place.
@register_pass("int8_products", after="packed_convolutions", required=True)
def multiply_in_int8(context: PassContext) -> None:
    """Makes products of int8, and lookups too, in all signatures; the context counts what they read."""
    if context.storage != DYNAMIC:
        return
    weights = _Weights(context.file)
    initialisers = {index for index, _ in context.file.initialiser_subgraphs()}
    for number, subgraph in enumerate(context.file.subgraphs):
        if number not in initialisers:
            _Rewriting(context, context.index(subgraph), weights).run()
    context.stored += weights.stored


class _Weights:
    """Frozen weights in int8, each once for all signatures."""

    def __init__(self, file: FlatModel) -> None:
        self._file = file
        self._digests: dict[tuple[int, tuple[int, ...]], bytes] = {}
        self._kernels: dict[bytes, _Kernel] = {}
        self._tables: dict[int, _Table] = {}

    @property
    def stored(self) -> int:
        """Counts them."""
        return len(self._kernels) + len(self._tables)

    def matrix(self, tensor: Any) -> NDArray[np.float32] | None:
        """The numbers of a constant that is a matrix large enough; None if it is none."""
        shape = list(map(int, tensor.shape))
        data = self._file.model.buffers[tensor.buffer].data
        if tensor.type != _Type.FLOAT32 or data is None or math.prod(shape) * 4 != len(data):
            return None
        if len(shape) < 2 or math.prod(shape[:-2]) != 1 or math.prod(shape) < LEAST_ELEMENTS:
            return None
        found: NDArray[np.float32] = np.asarray(data, np.uint8).view(np.float32).reshape(shape[-2:])
        return found

    def form(self, tensor: Any, matrix: NDArray[np.float32]) -> bytes:
        """Tells a matrix from others."""
        key = int(tensor.buffer), matrix.shape if matrix.flags.c_contiguous else (-1, *matrix.shape)
        if key not in self._digests:
            told = hashlib.sha256(str(matrix.shape).encode())
            told.update(np.ascontiguousarray(matrix).data)
            self._digests[key] = told.digest()
        return self._digests[key]

    def kernel(self, form: bytes, matrix: NDArray[np.float32]) -> _Kernel:
        """A matrix in int8."""
        if form not in self._kernels:
            stored = quantized_rows(matrix)
            buffer = self._file.add_buffer(np.ascontiguousarray(stored.values))
            self._kernels[form] = _Kernel(buffer, _quantization(stored.scales), matrix.shape)
        return self._kernels[form]

    def table(self, tensor: Any, matrix: NDArray[np.float32]) -> _Table:
        """Rows in int8."""
        if tensor.buffer not in self._tables:
            stored = quantized_rows(matrix)
            buffers = self._file.add_buffer(stored.values), self._file.add_buffer(stored.scales)
            self._tables[int(tensor.buffer)] = _Table(*buffers)
        return self._tables[int(tensor.buffer)]


def _quantization(scales: NDArray[np.float32]) -> SharedQuantization:
    quantization = SharedQuantization()
    quantization.scale, quantization.zeroPoint = scales.tolist(), [0] * scales.size
    quantization.quantizedDimension = 0
    return quantization


class _Rewriting:
    """The rewriting of one subgraph."""

    def __init__(self, context: PassContext, index: GraphIndex, weights: _Weights) -> None:
        self._context, self._index, self._weights = context, index, weights
        self._file, self._subgraph = context.file, index.subgraph
        self._tensors = self._subgraph.tensors

    def run(self) -> None:
        """Replaces the ops."""
        products = {id(each.operator): each for each in self._products()}
        exact = set(self._first_on_the_way_back(products))
        operators: list[Any] = []
        for operator in self._index.operators:
            product = products.get(id(operator))
            if product is not None and id(operator) not in exact:
                operators += self._in_int8(product)
            elif self._is_lookup(operator):
                operators += self._lookup(operator)
            else:
                operators.append(operator)
        self._subgraph.operators = self._cancelled(operators)

    def _products(self) -> Iterator[_Product]:
        for operator in self._index.operators:
            if self._file.builtin(operator) != _Operator.BATCH_MATMUL or not self._is_frozen(operator):
                continue
            if operator.builtinOptions.adjX or operator.builtinOptions.adjY:
                continue
            for side in (_RIGHT, _LEFT):
                tensor = self._tensors[int(operator.inputs[side])]
                matrix = self._weights.matrix(tensor)
                if matrix is not None and np.isfinite(matrix).all():
                    outputs_first = matrix if side == _LEFT else matrix.T
                    forms = (self._weights.form(tensor, each) for each in (outputs_first, outputs_first.T))
                    yield _Product(operator, side, *forms)
                    break

    def _is_frozen(self, operator: Any) -> bool:
        return self._context.frozen(text_of(self._tensors[int(operator.outputs[0])].name or ""))

    def _first_on_the_way_back(self, products: dict[int, _Product]) -> Iterator[int]:
        """Finds products that a gradient meets before all others: no other product of a gradient led there."""
        before: dict[int, tuple[frozenset[bytes], bool]] = {}
        nothing: tuple[frozenset[bytes], bool] = frozenset(), False
        for operator in self._index.operators:
            given = [before.get(int(each), nothing) for each in operator.inputs]
            forms, came_back = frozenset().union(*(each for each, _ in given)), any(each for _, each in given)
            if (product := products.get(id(operator))) is not None:
                if product.transposed in forms:
                    if not came_back:
                        yield id(operator)
                    came_back = True
                forms |= {product.form}
            for made in operator.outputs:
                before[int(made)] = forms, came_back

    def _in_int8(self, product: _Product) -> Iterator[Any]:
        operator, side = product.operator, product.side
        matrix = self._matrix(int(operator.inputs[side]))
        kernel = self._weights.kernel(product.form, matrix if side == _LEFT else matrix.T)
        rows, output = int(operator.inputs[1 - side]), int(operator.outputs[0])
        made = output
        if side == _LEFT:
            rows, made = self._exchanged(rows), self._exchanged(output)
            yield exchange(self._file, self._subgraph, int(operator.inputs[_RIGHT]), rows)
        operator.opcodeIndex = self._file.operator_code(_Operator.FULLY_CONNECTED, _SCALE_FOR_EACH_OUTPUT)
        operator.inputs = [rows, self._constant(_Type.INT8, kernel.shape, kernel.buffer, kernel.quantization), -1]
        operator.outputs = [made]
        operator.builtinOptionsType = _Options.FullyConnectedOptions
        operator.builtinOptions = schema.FullyConnectedOptionsT()
        operator.builtinOptions.asymmetricQuantizeInputs = True
        operator.builtinOptions.keepNumDims = len(self._shape(rows)) > 2
        yield operator
        if side == _LEFT:
            yield exchange(self._file, self._subgraph, made, output)

    def _is_lookup(self, operator: Any) -> bool:
        if self._file.builtin(operator) != _Operator.GATHER or not self._is_frozen(operator):
            return False
        matrix = self._weights.matrix(self._tensors[int(operator.inputs[0])])
        options = operator.builtinOptions
        return (
            matrix is not None
            and len(self._shape(int(operator.inputs[0]))) == 2
            and bool(np.isfinite(matrix).all())
            and options.axis == options.batchDims == 0
        )

    def _lookup(self, operator: Any) -> Iterator[Any]:
        """Rows of int8, made float32, times their scales."""
        source, indices = (int(each) for each in operator.inputs[:2])
        output = int(operator.outputs[0])
        shape = self._shape(output)
        table = self._weights.table(self._tensors[source], self._matrix(source))
        ones = _quantization(np.ones(1, np.float32))
        looked_up, scales = self._like(output, shape), self._like(output, [*shape[:-1], 1])
        self._tensors[looked_up].type, self._tensors[looked_up].quantization = _Type.INT8, ones
        plain = self._like(output, shape)
        rows = self._constant(_Type.INT8, self._shape(source), table.rows, ones)
        of_rows = self._constant(_Type.FLOAT32, [self._shape(source)[0], 1], table.scales)
        operator.opcodeIndex = self._file.operator_code(_Operator.GATHER, _OF_INT8)
        operator.inputs, operator.outputs = [rows, indices], [looked_up]
        yield operator
        options = operator.builtinOptionsType, operator.builtinOptions
        yield self._op(_Operator.GATHER, [of_rows, indices], scales, *options)
        yield self._op(
            _Operator.DEQUANTIZE,
            [looked_up],
            plain,
            _Options.DequantizeOptions,
            schema.DequantizeOptionsT(),
            version=_OF_INT8,
        )
        yield self._op(_Operator.MUL, [plain, scales], output, _Options.MulOptions, schema.MulOptionsT())

    def _cancelled(self, operators: list[Any]) -> list[Any]:
        """Leaves out exchanges that are exchanged again, and those that nobody needs."""
        exchanged: dict[int, int] = {}
        same: dict[int, int] = {}
        for operator in operators:
            operator.inputs = [same.get(int(each), int(each)) for each in operator.inputs]
            if self._exchanges(operator):
                source, made = int(operator.inputs[0]), int(operator.outputs[0])
                if source in exchanged:
                    same[made] = exchanged[source]
                exchanged[made] = source
        needed = {int(each) for each in self._subgraph.outputs}
        kept = []
        for operator in reversed(operators):
            if not self._exchanges(operator) or int(operator.outputs[0]) in needed:
                kept.append(operator)
                needed |= {int(each) for each in operator.inputs}
        return kept[::-1]

    def _exchanges(self, operator: Any) -> bool:
        """Tells whether an op exchanges the last two dimensions and nothing else."""
        if self._file.builtin(operator) != _Operator.TRANSPOSE:
            return False
        data = self._file.model.buffers[self._tensors[int(operator.inputs[1])].buffer].data
        if data is None:
            return False
        axes = np.asarray(data, np.uint8).view(np.int32).tolist()
        return len(axes) > 1 and axes == [*range(len(axes) - 2), len(axes) - 1, len(axes) - 2]

    def _matrix(self, tensor: int) -> NDArray[np.float32]:
        matrix = self._weights.matrix(self._tensors[tensor])
        assert matrix is not None
        return matrix

    def _shape(self, tensor: int) -> list[int]:
        return list(map(int, self._tensors[tensor].shape))

    def _exchanged(self, tensor: int) -> int:
        *first, rows, columns = self._shape(tensor)
        return self._like(tensor, [*first, columns, rows])

    def _like(self, tensor: int, shape: Sequence[int]) -> int:
        old, made = self._tensors[tensor], schema.TensorT()
        made.type, made.shape, made.buffer, made.name = old.type, list(shape), 0, old.name
        return append(self._tensors, made)

    def _constant(
        self, dtype: int, shape: Sequence[int], buffer: int, quantization: SharedQuantization | None = None
    ) -> int:
        made = schema.TensorT()
        made.type, made.shape, made.buffer, made.quantization = dtype, list(shape), buffer, quantization
        return append(self._tensors, made)

    def _op(self, kind: int, given: list[int], made: int, options_type: int, options: Any, *, version: int = 1) -> Any:
        operator = schema.OperatorT()
        operator.opcodeIndex = self._file.operator_code(kind, version)
        operator.inputs, operator.outputs = given, [made]
        operator.builtinOptionsType, operator.builtinOptions = options_type, options
        return operator
