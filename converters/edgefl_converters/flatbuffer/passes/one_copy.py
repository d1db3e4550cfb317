"""Large frozen kernels lie in a converted file once, and products read them where they lie.

XNNPACK in ai-edge-litert packs a constant on the right of a product into memory of its own: for each signature and each
micro-batch, before anything is called. On the left it reads the mapped file. So an output is ``(V x^T)^T`` here, with
the kernel stored transposed as V, ``[outputs, inputs]``, and the gradient of an input is ``(V^T g^T)^T``, where the
product transposes V into memory that all products share. With 64 rows and kernels of 768 x 2048 the one takes 0.94 of
the time, the other 1.3 (tflite-runtime 2.14, which makes no copies anyway: 1.1 and 2.2).
"""

from __future__ import annotations

import hashlib
import math
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from tensorflow.lite.python import schema_py_generated as schema

from edgefl_converters.flatbuffer.file import FlatModel
from edgefl_converters.flatbuffer.graph_index import GraphIndex
from edgefl_converters.flatbuffer.in_place import LARGE, is_read_in_place
from edgefl_converters.flatbuffer.object_form import append
from edgefl_converters.flatbuffer.pass_context import PassContext
from edgefl_converters.flatbuffer.passes.base import register_pass
from edgefl_converters.flatbuffer.transpositions import Transpositions

__all__ = ["read_kernels_in_place"]

_BATCH_MATMUL = schema.BuiltinOperator.BATCH_MATMUL
_LEFT, _RIGHT = 0, 1
_MOST_DIMENSIONS = 4
"""That the first version of TRANSPOSE takes."""


class _Use(NamedTuple):
    """A product of a constant matrix, on one of its sides, and another matrix."""

    product: Any
    side: int
    buffer: int
    shape: tuple[int, int]
    rows: int
    """The other matrix has so many; columns where it is on the right."""

    def is_worth_it(self) -> bool:
        return is_read_in_place(self.shape, self.rows)


class _Form(NamedTuple):
    """A matrix: what is the same for its transpose, and which of the two it is."""

    kernel: bytes
    transposed: bool


# Before frozen weights are stored in fewer bytes, so that each is restored once.
@register_pass("one_copy", after="flat_products", runtime="ai-edge-litert")
def read_kernels_in_place(context: PassContext) -> None:
    """Stores each large frozen kernel in one form, and multiplies by it from the left."""
    file = context.file
    uses = [list(_uses(file, context.index(subgraph))) for subgraph in file.subgraphs]
    kernels = _Kernels(file, {id(use.product) for found in uses for use in found})
    of_kernel: defaultdict[bytes, list[_Use]] = defaultdict(list)
    for use in (each for found in uses for each in found):
        of_kernel[kernels.form(use).kernel].append(use)
    stored = {
        kernel: kernels.choose(every) for kernel, every in of_kernel.items() if all(use.is_worth_it() for use in every)
    }
    for subgraph, found in zip(file.subgraphs, uses, strict=True):
        chosen = [(use, stored[kernel]) for use in found if (kernel := kernels.form(use).kernel) in stored]
        if chosen:
            _rewrite(file, context.index(subgraph), kernels, chosen)


def _uses(file: FlatModel, index: GraphIndex) -> Iterator[_Use]:
    for product in index.operators:
        if file.builtin(product) != _BATCH_MATMUL or product.builtinOptions.adjX or product.builtinOptions.adjY:
            continue
        tensors = [index.subgraph.tensors[int(each)] for each in product.inputs]
        shapes = [tuple(map(int, each.shape)) for each in tensors]
        ranks = {len(shape) for shape in shapes}
        if len(ranks) > 1 or max(ranks) > _MOST_DIMENSIONS or any(math.prod(shape[:-2]) != 1 for shape in shapes):
            continue
        large = [side for side, tensor in enumerate(tensors) if _is_large_constant(file, tensor)]
        if len(large) == 1:  # of two kernels neither can be turned without the other
            side, other = large[0], shapes[1 - large[0]]
            shape, rows = (shapes[side][-2], shapes[side][-1]), other[-1 if side == _LEFT else -2]
            yield _Use(product, side, int(tensors[side].buffer), shape, rows)


def _is_large_constant(file: FlatModel, tensor: Any) -> bool:
    data = file.model.buffers[tensor.buffer].data
    return tensor.type == schema.TensorType.FLOAT32 and data is not None and len(data) >= LARGE


class _Kernels:
    """The kernels of a file by their numbers: one that is there plain and transposed is one kernel.

    Args:
        file: where they are.
        turning: ids of the ops that take a kernel either way round.
    """

    def __init__(self, file: FlatModel, turning: Collection[int]) -> None:
        self._file = file
        self._forms: dict[tuple[int, tuple[int, int]], _Form] = {}
        self._buffers: dict[_Form, int] = {}
        self._read_otherwise = {
            int(subgraph.tensors[int(each)].buffer)
            for subgraph in file.subgraphs
            for operator in subgraph.operators
            if id(operator) not in turning
            for each in operator.inputs
            if each >= 0
        }

    def form(self, use: _Use) -> _Form:
        """Tells which kernel a product uses, in which form."""
        key = use.buffer, use.shape
        if key not in self._forms:
            plain, transposed = _digest(self._matrix(use)), _digest(self._matrix(use).T)
            self._forms[key] = _Form(min(plain, transposed), transposed < plain)
            self._buffers.setdefault(self._forms[key], use.buffer)
        return self._forms[key]

    def choose(self, uses: Iterable[_Use]) -> _Form:
        """The form in which a kernel is stored: what reads it otherwise needs one, else most products decide."""
        votes: Counter[_Form] = Counter()
        for use in uses:
            form = self.form(use)
            if use.buffer in self._read_otherwise:
                return form
            votes[form if use.side == _LEFT else _Form(form.kernel, not form.transposed)] += 1
        return max(votes, key=lambda form: (votes[form], form.transposed))

    def buffer(self, use: _Use, form: _Form) -> int:
        """The buffer of the kernel that a product uses, in a form."""
        if form not in self._buffers:
            self._buffers[form] = self._file.add_buffer(np.ascontiguousarray(self._matrix(use).T))
        return self._buffers[form]

    def _matrix(self, use: _Use) -> NDArray[np.float32]:
        data = self._file.model.buffers[use.buffer].data
        return np.asarray(data, np.uint8).view(np.float32).reshape(use.shape)


def _digest(matrix: NDArray[np.float32]) -> bytes:
    told = hashlib.sha256(str(matrix.shape).encode())
    told.update(np.ascontiguousarray(matrix).data)
    return told.digest()


def _rewrite(file: FlatModel, index: GraphIndex, kernels: _Kernels, chosen: Iterable[tuple[_Use, _Form]]) -> None:
    """Puts kernels on the left of the products of a subgraph, as they are stored."""
    subgraph, turned = index.subgraph, Transpositions(file, index.subgraph)
    constants: dict[tuple[int, tuple[int, ...]], int] = {}
    for use, form in chosen:
        as_it_is = kernels.form(use) == form
        product, inputs = use.product, [int(each) for each in use.product.inputs]
        old = subgraph.tensors[inputs[use.side]]
        key = kernels.buffer(use, form), (*map(int, old.shape[:-2]), *(use.shape if as_it_is else use.shape[::-1]))
        if key not in constants:
            made = schema.TensorT()
            made.type, made.buffer, made.shape, made.name = old.type, key[0], list(key[1]), old.name
            constants[key] = append(subgraph.tensors, made)
        product.builtinOptions.adjX = as_it_is == (use.side == _RIGHT)
        if use.side == _LEFT:
            product.inputs = [constants[key], inputs[_RIGHT]]
        else:
            product.inputs = [constants[key], turned.before(product, inputs[_LEFT])]
            product.outputs = [turned.behind(product, int(product.outputs[0]))]
    turned.insert()
