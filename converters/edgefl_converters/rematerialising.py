"""Large activations are computed again for the backward pass where that lowers the peak of memory, in a converted file.

A normalised and rectified activation is needed in the forward pass and, far later, for gradients. It is a few cheap ops
away from what it was made of, which waits for the backward pass anyway, so that it need not wait itself. The idea is
Chen et al. 2016, "Training deep nets with sublinear memory cost", kept to ops that cost next to nothing: a step of
MobileNetV2 in full takes 1.005 times as long, and 13 MB of 121 less.
"""

from __future__ import annotations

import copy
from collections import defaultdict
from collections.abc import Callable, Sequence
from itertools import accumulate
from typing import Any, NamedTuple

from tensorflow.lite.python import schema_py_generated as schema

from edgefl_converters.scheduling import LARGE, bytes_of

__all__ = ["compute_again"]

_MOST_OPS = 4
"""Most ops that are done again for one activation: a layer normalisation's scale and offset are so many."""

_Operator = schema.BuiltinOperator
_CHEAP = {
    getattr(_Operator, name)
    for name in ("ADD", "SUB", "MUL", "MAXIMUM", "MINIMUM", "RELU", "RELU6", "LEAKY_RELU", "RESHAPE")
}


class _Graph:
    """Who makes and reads each tensor of a list of ops, by place in it."""

    def __init__(self, subgraph: Any, operators: Sequence[Any]) -> None:
        self.subgraph = subgraph
        self.operators = operators
        self.made_at: dict[int, int] = {}
        self.read_at: dict[int, list[int]] = defaultdict(list)
        for place, operator in enumerate(operators):
            self.made_at.update((int(tensor), place) for tensor in operator.outputs)
            for tensor in {int(tensor) for tensor in operator.inputs}:
                self.read_at[tensor].append(place)
        for tensor in map(int, subgraph.outputs):
            self.read_at[tensor].append(len(operators))

    def bytes(self, tensor: int) -> int:
        return bytes_of(self.subgraph, tensor)

    def lives_until(self, tensor: int) -> int:
        return max((self.made_at.get(tensor, 0), *self.read_at[tensor]))

    def peak(self) -> tuple[int, int]:
        """The most bytes that what ops make takes at a time, and where."""
        changes = [0] * (len(self.operators) + 2)
        for tensor, place in self.made_at.items():
            changes[place] += self.bytes(tensor)
            changes[self.lives_until(tensor) + 1] -= self.bytes(tensor)
        live = list(accumulate(changes))
        most = max(live)
        return most, live.index(most)


class _Again(NamedTuple):
    """A tensor, the ops that make it of what is there anyway, and where it is read the second time."""

    tensor: int
    chain: tuple[Any, ...]
    place: int


def compute_again(subgraph: Any, builtin: Callable[[Any], int]) -> None:
    """Computes large tensors a second time for their late uses, as far as that lowers the peak.

    What is computed again has the same bits.

    Args:
        subgraph: of a model in object form, in the order in which its ops run; changed in place.
        builtin: the builtin operator of an op.
    """
    graph = _Graph(subgraph, subgraph.operators)
    most, where = graph.peak()
    tried: set[int] = set()
    while (found := _waiting(graph, where, builtin, tried)) is not None:
        tried.add(found.tensor)
        changed = _Graph(subgraph, _with_again(graph, found))
        peak = changed.peak()
        if peak[0] > most:
            continue
        if peak[0] < most:
            subgraph.operators = changed.operators
        graph, (most, where) = changed, peak


def _waiting(graph: _Graph, where: int, builtin: Callable[[Any], int], tried: set[int]) -> _Again | None:
    """The largest tensor that waits over a place and can be made again behind it."""
    found = []
    for tensor, made in graph.made_at.items():
        reads = graph.read_at[tensor]
        late = [place for place in reads if place > where]
        if made >= where or where in reads or len(late) in (0, len(reads)) or late[-1] == len(graph.operators):
            continue
        if tensor in tried or graph.bytes(tensor) < LARGE:
            continue
        chain: dict[int, Any] = {}
        if _collect(graph, tensor, late[0], builtin, chain):
            found.append(_Again(tensor, tuple(chain.values()), late[0]))
    return max(found, key=lambda each: graph.bytes(each.tensor), default=None)


def _collect(graph: _Graph, tensor: int, until: int, builtin: Callable[[Any], int], chain: dict[int, Any]) -> bool:
    """Adds the ops that make a tensor of what is there until a place; whether they are few and cheap."""
    place = graph.made_at[tensor]
    operator = graph.operators[place]
    if builtin(operator) not in _CHEAP:
        return False
    for source in map(int, operator.inputs):
        made = graph.made_at.get(source)
        if made is None or made in chain or graph.lives_until(source) >= until:
            continue
        # What was read of a variable may change once it has been used for the last time.
        is_read = builtin(graph.operators[made]) == _Operator.READ_VARIABLE
        if (is_read or graph.bytes(source) >= LARGE) and not _collect(graph, source, until, builtin, chain):
            return False
    chain[place] = operator
    return len(chain) <= _MOST_OPS


def _with_again(graph: _Graph, again: _Again) -> list[Any]:
    """The ops with those of a chain once more; ops that are changed are copies."""
    tensors = graph.subgraph.tensors
    renamed: dict[int, int] = {}
    added = []
    for operator in map(copy.copy, again.chain):
        operator.inputs = [renamed.get(int(tensor), int(tensor)) for tensor in operator.inputs]
        for tensor in map(int, operator.outputs):
            tensors.append(copy.copy(tensors[tensor]))
            renamed[tensor] = len(tensors) - 1
        operator.outputs = [renamed[int(tensor)] for tensor in operator.outputs]
        added.append(operator)
    operators = list(graph.operators)
    for place in graph.read_at[again.tensor]:
        if place >= again.place:
            operators[place] = operator = copy.copy(operators[place])
            operator.inputs = [
                renamed[again.tensor] if tensor == again.tensor else int(tensor) for tensor in operator.inputs
            ]
    operators[again.place : again.place] = added
    return operators
