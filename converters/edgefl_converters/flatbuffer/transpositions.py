"""Transpositions of matrices in a converted file: made where a rewriting needs them, as few as will do."""

from __future__ import annotations

import copy
from collections import defaultdict
from typing import Any

import numpy as np
from tensorflow.lite.python import schema_py_generated as schema

from edgefl_converters.flatbuffer.file import FlatModel
from edgefl_converters.flatbuffer.graph_index import GraphIndex
from edgefl_converters.flatbuffer.object_form import append

__all__ = ["Transpositions", "drop_needless"]

_Operator = schema.BuiltinOperator


class Transpositions:
    """What is transposed in a subgraph for ops that are given, or give, matrices the other way round.

    Args:
        file: whose subgraph it is.
        index: of the subgraph.
    """

    def __init__(self, file: FlatModel, index: GraphIndex) -> None:
        self._file, self._subgraph = file, index.subgraph
        self._known: dict[int, int] = {}
        self._before: defaultdict[int, list[Any]] = defaultdict(list)
        self._behind: defaultdict[int, list[Any]] = defaultdict(list)

    def before(self, operator: Any, tensor: int) -> int:
        """A tensor with its last two dimensions exchanged, to be made before an op, which is the first to need it."""
        if tensor not in self._known:
            self._known[tensor] = self._like(tensor)
            self._before[id(operator)].append(self._op(tensor, self._known[tensor]))
        return self._known[tensor]

    def behind(self, operator: Any, tensor: int) -> int:
        """The tensor that an op is to make instead of one, which is made of it behind the op."""
        made = self._known[tensor] = self._like(tensor)
        self._behind[id(operator)].append(self._op(made, tensor))
        return made

    def insert(self) -> None:
        """Adds the ops to the subgraph."""
        self._subgraph.operators = [
            each
            for operator in self._subgraph.operators
            for each in (*self._before[id(operator)], operator, *self._behind[id(operator)])
        ]

    def _like(self, tensor: int) -> int:
        old, made = self._subgraph.tensors[tensor], schema.TensorT()
        made.type, made.buffer, made.name = old.type, 0, old.name
        made.shape = _exchanged(list(map(int, old.shape)))
        return append(self._subgraph.tensors, made)

    def _op(self, source: int, target: int) -> Any:
        operator = schema.OperatorT()
        operator.opcodeIndex = self._file.operator_code(_Operator.TRANSPOSE)
        operator.builtinOptionsType = schema.BuiltinOptions.TransposeOptions
        operator.builtinOptions = schema.TransposeOptionsT()
        axes = _exchanged(list(range(len(self._subgraph.tensors[source].shape))))
        operator.inputs, operator.outputs = [source, self._file.integers(self._subgraph, axes)], [target]
        return operator


def drop_needless(file: FlatModel, subgraph: Any) -> None:
    """Drops transpositions that undo another, and adds up what is transposed before it is.

    Args:
        file: whose subgraph it is.
        subgraph: changed in place.
    """
    _add_before(file, subgraph)
    source = {
        int(each.outputs[0]): int(each.inputs[0]) for each in subgraph.operators if _is_exchange(file, subgraph, each)
    }
    same = {tensor: source[made] for tensor, made in source.items() if made in source}
    for operator in subgraph.operators:
        operator.inputs = [same.get(int(each), int(each)) for each in operator.inputs]
    used = {int(each) for operator in subgraph.operators for each in operator.inputs}
    used |= set(map(int, subgraph.outputs))
    subgraph.operators = [
        each
        for each in subgraph.operators
        if not len(each.outputs) or int(each.outputs[0]) in used or not _is_exchange(file, subgraph, each)
    ]


def _add_before(file: FlatModel, subgraph: Any) -> None:
    """Makes sums of two matrices that are transposed for nothing else the transposed sum."""
    index = GraphIndex(subgraph)
    made_by = {tensor: index.maker(tensor) for tensor in index.made_at}
    given, dropped = set(map(int, subgraph.outputs)), set()

    def source(tensor: int) -> int | None:
        maker = made_by.get(tensor)
        alone = len(index.read_at[tensor]) == 1 and tensor not in given
        return int(maker.inputs[0]) if alone and _is_exchange(file, subgraph, maker) else None

    operators: list[Any] = []
    for operator in index.operators:
        operators.append(operator)
        if file.builtin(operator) != _Operator.ADD or operator.builtinOptions.fusedActivationFunction:
            continue
        terms = [int(each) for each in operator.inputs]
        sources = [source(each) for each in terms]
        if None in sources or subgraph.tensors[terms[0]].shape != subgraph.tensors[terms[1]].shape:
            continue
        exchange, other = (made_by[each] for each in terms)
        dropped |= {id(exchange), id(other)}
        total, between = int(operator.outputs[0]), int(terms[0])
        # Its tensor is what the sum is now, before it is transposed.
        subgraph.tensors[between].shape = list(subgraph.tensors[sources[0]].shape)
        operator.inputs, operator.outputs = sources, [between]
        behind = copy.copy(exchange)
        behind.inputs, behind.outputs = [between, int(exchange.inputs[1])], [total]
        made_by[total] = behind
        operators.append(behind)
    subgraph.operators = [each for each in operators if id(each) not in dropped]


def _is_exchange(file: FlatModel, subgraph: Any, operator: Any) -> bool:
    """Tells whether an op exchanges the last two dimensions of a tensor."""
    if operator is None or file.builtin(operator) != _Operator.TRANSPOSE:
        return False
    data = file.model.buffers[subgraph.tensors[int(operator.inputs[1])].buffer].data
    if data is None or not len(data):
        return False
    axes = np.asarray(data, np.uint8).view(np.int32).tolist()
    return len(axes) >= 2 and axes == _exchanged(list(range(len(axes))))


def _exchanged(items: list[int]) -> list[int]:
    return [*items[:-2], items[-1], items[-2]]
