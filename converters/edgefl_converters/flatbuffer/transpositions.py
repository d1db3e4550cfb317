"""Transpositions of matrices in a converted file: made where a rewriting needs them, as few as will do."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from tensorflow.lite.python import schema_py_generated as schema

from edgefl_converters.flatbuffer.file import FlatModel
from edgefl_converters.flatbuffer.object_form import append

__all__ = ["Transpositions", "exchange"]

_Operator = schema.BuiltinOperator


class Transpositions:
    """Makes what ops of a subgraph are given, or give, of matrices that lie the other way round.

    Args:
        file: whose subgraph it is.
        subgraph: gets them when all are known.
    """

    def __init__(self, file: FlatModel, subgraph: Any) -> None:
        self._file, self._subgraph = file, subgraph
        self._known: dict[int, int] = {}
        self._before: defaultdict[int, list[Any]] = defaultdict(list)
        self._behind: defaultdict[int, list[Any]] = defaultdict(list)

    def before(self, operator: Any, tensor: int) -> int:
        """A tensor with its last two dimensions exchanged, to be made before an op, which is the first to need it."""
        if tensor not in self._known:
            self._known[tensor] = self._like(tensor)
            self._before[id(operator)].append(exchange(self._file, self._subgraph, tensor, self._known[tensor]))
        return self._known[tensor]

    def behind(self, operator: Any, tensor: int) -> int:
        """The tensor that an op is to make instead of one, which is made of it behind the op."""
        made = self._known[tensor] = self._like(tensor)
        self._behind[id(operator)].append(exchange(self._file, self._subgraph, made, tensor))
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


def exchange(file: FlatModel, subgraph: Any, source: int, target: int) -> Any:
    """The op that makes a tensor of another one by exchanging its last two dimensions."""
    operator = schema.OperatorT()
    operator.opcodeIndex = file.operator_code(_Operator.TRANSPOSE)
    operator.builtinOptionsType = schema.BuiltinOptions.TransposeOptions
    operator.builtinOptions = schema.TransposeOptionsT()
    axes = _exchanged(list(range(len(subgraph.tensors[source].shape))))
    operator.inputs, operator.outputs = [source, file.integers(subgraph, axes)], [target]
    return operator


def _exchanged(items: list[int]) -> list[int]:
    return [*items[:-2], items[-1], items[-2]]
