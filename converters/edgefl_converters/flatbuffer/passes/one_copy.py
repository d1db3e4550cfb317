"""Large frozen kernels lie in the file once and are read where they lie, in a converted file.

XNNPACK in ai-edge-litert packs a constant on the right of a product into memory of its own: once for each signature and
each micro-batch, before anything is called. On the left it reads the mapped file. So the layer's output is ``(V x^T)^T``,
with the kernel stored transposed as V, ``[outputs, inputs]``; and the gradient of its input is ``(V^T g^T)^T``, where the
product transposes V by itself (``adj_x``), into memory that all products share. That takes 0.95 of the time forward
and 1.3 times as long backward, for 64 rows. tflite-runtime 2.14 packs nothing ahead, and transposes slowly: a file for
it alone has its kernels as they were.
"""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from tensorflow.lite.python import schema_py_generated as schema

from edgefl_converters.flatbuffer.file import FlatModel
from edgefl_converters.flatbuffer.graph_index import GraphIndex
from edgefl_converters.flatbuffer.pass_context import PassContext
from edgefl_converters.flatbuffer.passes.base import register_pass
from edgefl_converters.flatbuffer.transpositions import Transpositions, drop_needless

__all__ = ["LARGE", "read_kernels_in_place"]

LARGE = 1 << 18
"""Bytes of a kernel from which it is not copied: below 256 x 256 turning what it is multiplied with costs a fifth."""

_NARROW = 64
"""Rows or columns of a kernel up to which it stays as it is."""

_TILE, _IDLE = 32, 8
"""Columns of a product that XNNPACK makes at once on x86_64, and how many may be idle: rows become columns."""

_BATCH_MATMUL = schema.BuiltinOperator.BATCH_MATMUL
_LEFT, _RIGHT = 0, 1


class _Use(NamedTuple):
    """A product of matrices of which one is a constant."""

    operator: Any
    side: int
    shape: tuple[int, int]
    buffer: int
    rows: int
    """Of what it is multiplied with."""

    def lies_well(self, turned: bool) -> bool:
        """Tells whether the constant can be read in place, as it is or turned."""
        return turned == (self.side == _RIGHT)


class _Kernel(NamedTuple):
    """A matrix in the one of its two forms whose bytes come first, and whether it was turned for that."""

    digest: bytes
    turned: bool


# Before frozen constants are stored in fewer bytes: they are restored once then, too.
@register_pass("one_copy", after="flat_products", runtime="ai-edge-litert")
def read_kernels_in_place(context: PassContext) -> None:
    """Stores large frozen kernels once, as most products need them on their left side."""
    file = context.file
    uses = [(context.index(subgraph), list(_uses(file, context.index(subgraph)))) for subgraph in file.subgraphs]
    kernels = _Kernels(file)
    products: dict[bytes, list[_Use]] = {}
    for _, found in uses:
        for use in found:
            products.setdefault(kernels.of(use.buffer, use.shape).digest, []).append(use)
    stored = {
        digest: _best(file, kernels, every) for digest, every in products.items() if all(map(_is_worth_it, every))
    }
    for index, found in uses:
        rewriting = _Rewriting(file, index, kernels)
        for use in found:
            chosen = stored.get(kernels.of(use.buffer, use.shape).digest)
            if chosen is not None:
                rewriting.read_in_place(use, chosen)
        rewriting.finish()


def _uses(file: FlatModel, index: GraphIndex) -> Iterator[_Use]:
    """The products of a subgraph of a large constant matrix and another matrix."""
    tensors = index.subgraph.tensors
    for operator in index.operators:
        options = operator.builtinOptions
        if file.builtin(operator) != _BATCH_MATMUL or options.adjX or options.adjY:
            continue
        left, right = (tensors[int(each)] for each in operator.inputs)
        shapes = [tuple(map(int, each.shape)) for each in (left, right)]
        if len({len(shape) for shape in shapes}) > 1 or any(math.prod(shape[:-2]) != 1 for shape in shapes):
            continue
        for side, tensor in ((_LEFT, left), (_RIGHT, right)):
            data = file.model.buffers[tensor.buffer].data
            is_float = tensor.type == schema.TensorType.FLOAT32
            if is_float and data is not None and len(data) >= LARGE and min(shapes[side][-2:]) > _NARROW:
                rows = shapes[_RIGHT][-1] if side == _LEFT else shapes[_LEFT][-2]
                yield _Use(operator, side, shapes[side][-2:], int(tensor.buffer), rows)  # type: ignore[arg-type]


def _is_worth_it(use: _Use) -> bool:
    return -use.rows % _TILE <= _IDLE


def _best(file: FlatModel, kernels: _Kernels, uses: Iterable[_Use]) -> tuple[int, bool]:
    """The buffer that is kept of a kernel's, or made, and whether it holds it turned as its digest tells."""
    wanted: Counter[bool] = Counter()
    for use in uses:
        turned = kernels.of(use.buffer, use.shape).turned
        wanted[turned if use.side == _LEFT else not turned] += 1
    fixed = kernels.read_otherwise(uses)
    best = fixed if fixed is not None else max((False, True), key=lambda turned: wanted[turned])
    return kernels.buffer(next(iter(uses)), best), best


class _Kernels:
    """The matrices of a file by their contents: a kernel and its transpose are one."""

    def __init__(self, file: FlatModel) -> None:
        self._file = file
        self._known: dict[tuple[int, tuple[int, int]], _Kernel] = {}
        self._buffers: dict[_Kernel, int] = {}
        self._elsewhere: set[int] = set()
        """Buffers that something else than a product reads."""
        for subgraph in file.subgraphs:
            for operator in subgraph.operators:
                if file.builtin(operator) != _BATCH_MATMUL:
                    self._elsewhere |= {
                        int(subgraph.tensors[int(each)].buffer) for each in operator.inputs if each >= 0
                    }

    def of(self, buffer: int, shape: tuple[int, int]) -> _Kernel:
        """Tells which kernel a constant is, and in which of its forms."""
        if (buffer, shape) not in self._known:
            matrix = self._matrix(buffer, shape)
            plain, turned = _digest(matrix), _digest(matrix.T)
            known = _Kernel(min(plain, turned), turned < plain)
            self._known[buffer, shape] = known
            self._buffers.setdefault(known, buffer)
        return self._known[buffer, shape]

    def read_otherwise(self, uses: Iterable[_Use]) -> bool | None:
        """The form of a kernel that something else needs, as a table is looked up; None where nothing does."""
        for use in uses:
            if use.buffer in self._elsewhere:
                return self.of(use.buffer, use.shape).turned
        return None

    def buffer(self, use: _Use, turned: bool) -> int:
        """The buffer that holds a kernel in one of its forms; it is made where there is none."""
        known = self.of(use.buffer, use.shape)
        wanted = _Kernel(known.digest, turned)
        if wanted not in self._buffers:
            made = np.ascontiguousarray(self._matrix(use.buffer, use.shape).T)
            self._buffers[wanted] = self._file.add_buffer(made)
        return self._buffers[wanted]

    def _matrix(self, buffer: int, shape: tuple[int, int]) -> NDArray[np.float32]:
        data = self._file.model.buffers[buffer].data
        return np.asarray(data, np.uint8).view(np.float32).reshape(shape)


def _digest(matrix: NDArray[np.float32]) -> bytes:
    told = hashlib.sha256(str(matrix.shape).encode())
    told.update(np.ascontiguousarray(matrix).data)
    return told.digest()


class _Rewriting:
    """Makes the products of one subgraph read kernels in place."""

    def __init__(self, file: FlatModel, index: GraphIndex, kernels: _Kernels) -> None:
        self._file, self._subgraph, self._kernels = file, index.subgraph, kernels
        self._turned = Transpositions(file, index)
        self._stored: dict[tuple[int, tuple[int, ...]], int] = {}
        self._changed = False

    def read_in_place(self, use: _Use, chosen: tuple[int, bool]) -> None:
        """Puts a kernel, as it is stored, on the left side of a product."""
        self._changed = True
        buffer, turned = chosen
        as_used = self._kernels.of(use.buffer, use.shape).turned == turned
        product = use.operator
        left, right = (int(each) for each in product.inputs)
        constant = (left, right)[use.side]
        stored = self._constant(constant, buffer, use.shape if as_used else use.shape[::-1])
        product.builtinOptions.adjX = as_used if use.side == _RIGHT else not as_used
        if use.side == _LEFT:
            product.inputs = [stored, right]
        else:
            product.inputs = [stored, self._turned.before(product, left)]
            product.outputs = [self._turned.behind(product, int(product.outputs[0]))]

    def _constant(self, like: int, buffer: int, shape: tuple[int, ...]) -> int:
        """The tensor of a stored kernel, with as many dimensions as another."""
        tensor = self._subgraph.tensors[like]
        shape = (*map(int, tensor.shape[:-2]), *shape)
        if (buffer, shape) not in self._stored:
            made = schema.TensorT()
            made.type, made.shape, made.buffer, made.name = tensor.type, list(shape), buffer, tensor.name
            self._subgraph.tensors.append(made)
            self._stored[buffer, shape] = len(self._subgraph.tensors) - 1
        return self._stored[buffer, shape]

    def finish(self) -> None:
        """Puts the transpositions where they belong, and drops those that undo another."""
        if self._changed:
            self._turned.insert()
            drop_needless(self._file, self._subgraph)
