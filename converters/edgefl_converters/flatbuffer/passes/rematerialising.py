"""Large activations are computed again instead of waiting where memory is near its peak, in a converted file.

A normalised and rectified activation is needed in the forward pass and, far later, for gradients. It is a few cheap ops
away from what it was made of, which waits for the backward pass anyway, so that it need not wait itself. The idea is
Chen et al. 2016, "Training deep nets with sublinear memory cost", kept to ops that cost next to nothing: a step of
MobileNetV2 in full takes 1.01 times as long, and 102 MB instead of 116.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from itertools import accumulate, pairwise
from typing import Any, NamedTuple

from tensorflow.lite.python import schema_py_generated as schema

from edgefl_converters.flatbuffer.dependencies import MOVES
from edgefl_converters.flatbuffer.graph_index import GraphIndex
from edgefl_converters.flatbuffer.pass_context import PassContext
from edgefl_converters.flatbuffer.passes.base import register_pass
from edgefl_converters.flatbuffer.tensor_sizes import LARGE, bytes_of

__all__ = ["compute_again", "rematerialise"]

_NEAR = 0.8
"""Share of the peak from which it counts: a delegate's memory for the largest of its parts comes on top of what waits,
so that a lower peak elsewhere counts too. A step of MobileNetV2 takes 3 MB more at 1.0, and as much at 0.6."""

_MOST_OPS = 4
"""Most ops that are done again for one activation: a layer normalisation's scale and offset are so many."""

_Operator = schema.BuiltinOperator
_CHEAP = {
    getattr(_Operator, name)
    for name in ("ADD", "SUB", "MUL", "MAXIMUM", "MINIMUM", "RELU", "RELU6", "LEAKY_RELU", "RESHAPE")
}


# It looks at how long tensors wait in the order that was chosen.
@register_pass("rematerialising", after="scheduling")
def rematerialise(context: PassContext) -> None:
    """Lets large activations of all subgraphs be computed again instead of waiting."""
    for subgraph in context.file.subgraphs:
        compute_again(context.index(subgraph), context.file.builtin)


class _Lifetimes:
    """Tells how long the tensors of a subgraph wait in memory."""

    def __init__(self, index: GraphIndex) -> None:
        self.index = index
        self._outputs = set(map(int, index.subgraph.outputs))

    def bytes(self, tensor: int) -> int:
        return bytes_of(self.index.subgraph, tensor)

    def used_at(self, tensor: int) -> list[int]:
        """The places of the ops that read a tensor, each once; behind all ops where the subgraph returns it."""
        places = list(dict.fromkeys(self.index.read_at[tensor]))
        return [*places, len(self.index.operators)] if tensor in self._outputs else places

    def until(self, tensor: int) -> int:
        return max((self.index.made_at.get(tensor, 0), *self.used_at(tensor)))

    def live(self) -> list[int]:
        """Bytes of all that ops make, at each place."""
        changes = [0] * (len(self.index.operators) + 2)
        for tensor, place in self.index.made_at.items():
            changes[place] += self.bytes(tensor)
            changes[self.until(tensor) + 1] -= self.bytes(tensor)
        return list(accumulate(changes))


class _Again(NamedTuple):
    """A tensor, the reading before which it waits and its place, and the ops that make it of what is there anyway."""

    tensor: int
    reading: int
    place: int
    chain: tuple[Any, ...]


def compute_again(index: GraphIndex, builtin: Callable[[Any], int]) -> None:
    """Computes large tensors again for later uses, instead of letting them wait where memory is near its peak.

    What is computed again has the same bits.

    Args:
        index: of the subgraph, whose ops lie in the order in which they run; it is changed in place.
        builtin: the builtin operator of an op.
    """
    lifetimes = _Lifetimes(index)
    live = lifetimes.live()
    tried: set[tuple[int, int]] = set()
    while (found := _waiting(lifetimes, live, builtin, tried)) is not None:
        tried.add((found.tensor, found.reading))
        changed = _Lifetimes(GraphIndex(index.subgraph, _with_again(lifetimes, found)))
        live_then = changed.live()
        if max(live_then) <= max(live):
            lifetimes, live = changed, live_then
    index.subgraph.operators = list(lifetimes.index.operators)


def _waiting(
    lifetimes: _Lifetimes, live: Sequence[int], builtin: Callable[[Any], int], tried: set[tuple[int, int]]
) -> _Again | None:
    """The largest tensor that waits where memory is near its peak, and can be made again."""
    near = _NEAR * max(live)
    operators = lifetimes.index.operators
    found = []
    for tensor, made in lifetimes.index.made_at.items():
        if lifetimes.bytes(tensor) < LARGE or builtin(operators[made]) not in _CHEAP:
            continue
        for reading, (before, place) in enumerate(pairwise(lifetimes.used_at(tensor))):
            if (tensor, reading) in tried or place == len(operators):
                continue
            most = max(live[before + 1 : place], default=0)
            if most < near or most <= max(live[before], live[place]):
                continue
            chain: dict[int, Any] = {}
            if _collect(lifetimes, tensor, place, builtin, chain):
                found.append(_Again(tensor, reading, place, tuple(chain.values())))
    return max(found, key=lambda each: lifetimes.bytes(each.tensor), default=None)


def _collect(
    lifetimes: _Lifetimes, tensor: int, until: int, builtin: Callable[[Any], int], chain: dict[int, Any]
) -> bool:
    """Adds the ops that make a tensor of what is there until a place; whether they are few and cheap."""
    index = lifetimes.index
    place = index.made_at[tensor]
    operator = index.operators[place]
    if builtin(operator) not in _CHEAP:
        return False
    for source in index.inputs[place]:
        made = index.made_at.get(source)
        if made is None or made in chain or lifetimes.until(source) >= until:
            continue
        # What was read of a variable may change once it has been used for the last time.
        may_change = builtin(index.operators[made]) in (_Operator.READ_VARIABLE, *MOVES)
        if (may_change or lifetimes.bytes(source) >= LARGE) and not _collect(lifetimes, source, until, builtin, chain):
            return False
    chain[place] = operator
    return len(chain) <= _MOST_OPS


def _with_again(lifetimes: _Lifetimes, again: _Again) -> list[Any]:
    """The ops with those of a chain once more; ops that are changed are copies."""
    tensors = lifetimes.index.subgraph.tensors
    renamed: dict[int, int] = {}
    added = []
    for operator in map(copy.copy, again.chain):
        operator.inputs = [renamed.get(int(tensor), int(tensor)) for tensor in operator.inputs]
        for tensor in map(int, operator.outputs):
            tensors.append(copy.copy(tensors[tensor]))
            renamed[tensor] = len(tensors) - 1
        operator.outputs = [renamed[int(tensor)] for tensor in operator.outputs]
        added.append(operator)
    operators = list(lifetimes.index.operators)
    for place in lifetimes.used_at(again.tensor):
        if place >= again.place:
            operators[place] = operator = copy.copy(operators[place])
            operator.inputs = [
                renamed[again.tensor] if tensor == again.tensor else int(tensor) for tensor in operator.inputs
            ]
    operators[again.place : again.place] = added
    return operators
