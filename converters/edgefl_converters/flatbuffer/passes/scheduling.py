"""In what order the ops of a converted file run: each as late as possible, so that tensors do not wait in memory.

A weight is updated as soon as its gradient is there, and what only the backward pass needs is computed there. A
delegate would undo that: whatever it can compute it computes at the first opportunity, for instance a mask of every
layer during the forward pass. Dependencies between the large ops, in the file's metadata, keep it from that.
ai-edge-litert reads them (``model_control_dependencies``, described in TensorFlow's
compiler/mlir/lite/experimental/remat/metadata_util.h), tflite-runtime 2.14 does not.
"""

from __future__ import annotations

import functools
import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import pairwise
from operator import or_
from typing import Any

from tensorflow.lite.python import schema_py_generated as schema

__all__ = ["LARGE", "METADATA_NAME", "MOVES", "as_late_as_possible", "bytes_of", "control_edges", "serialized"]

METADATA_NAME = "model_control_dependencies"

LARGE = 1 << 17
"""Bytes of a tensor from which its ops keep their order. With smaller ones there would be more, smaller partitions."""

_VERSION = 1

_Operator = schema.BuiltinOperator
_CALLS = (_Operator.CALL_ONCE, _Operator.IF, _Operator.WHILE)
MOVES = (_Operator.RESHAPE, _Operator.TRANSPOSE)
"""Ops whose result may be what they are given, seen in another way."""
_NEVER_DELEGATED = {
    getattr(_Operator, name)
    for name in (
        *("CAST", "EQUAL", "GATHER", "GATHER_ND", "GREATER", "GREATER_EQUAL", "LESS", "LESS_EQUAL", "LOG_SOFTMAX"),
        *("NOT_EQUAL", "ONE_HOT", "SCATTER_ND", "SELECT", "SELECT_V2", "TILE"),
    )
}
"""Ops that XNNPACK does not take. Kept in order amid those that it takes, they would part them."""


def as_late_as_possible(subgraph: Any, builtin: Callable[[Any], int]) -> list[Any]:
    """The ops of a subgraph in another order: first the updates, as their gradients come, then what only outputs need.

    Args:
        subgraph: of a model in object form.
        builtin: the builtin operator of an op.
    """
    operators = list(subgraph.operators)
    needs = _needs(operators, builtin)
    made_by = _makers(operators)
    results = [made_by[int(tensor)] for tensor in subgraph.outputs if int(tensor) in made_by]
    calls = [index for index, each in enumerate(operators) if builtin(each) in _CALLS]
    updates = [index for index, each in enumerate(operators) if not len(each.outputs)]
    given = set(map(int, subgraph.inputs))
    data = sum(1 << index for index, each in enumerate(operators) if given & set(map(int, each.inputs)))
    reached = _reached(needs)
    trained = [index for index in updates if reached[index] & data]
    shared = _shared([reached[index] for index in trained])
    # What an update alone needs, such as a filter's gradient, says nothing about when it can begin.
    trained.sort(key=lambda index: ((reached[index] & shared).bit_count(), reached[index].bit_count()))
    order: dict[int, None] = {}
    # No delegate takes losses and counters: amid the others they would take its partitions apart.
    for wanted in (*calls[:1], *trained, *results, *updates, *range(len(operators))):
        _append(wanted, needs, order)
    return [operators[index] for index in order]


def control_edges(subgraph: Any, builtin: Callable[[Any], int]) -> list[tuple[int, int]]:
    """Pairs of places in the order of ops: the first must have run before the second may.

    The metadata replaces what a runtime assumes without it, that ops on variables keep their order. What needs a
    variable's value runs before the op that makes its next one, which may write it there.
    """
    operators = list(subgraph.operators)
    made_by = _makers(operators)
    edges: set[tuple[int, int]] = set()
    for place, needed in enumerate(_needs(operators, builtin)):
        given = {made_by.get(int(tensor)) for tensor in operators[place].inputs}
        edges |= {(before, place) for before in needed if before not in given}
    stateful, large = [], []
    for place, operator in enumerate(operators):
        if builtin(operator) in _CALLS or _handles(subgraph, operator):
            stateful.append(place)
        if builtin(operator) not in _NEVER_DELEGATED and any(
            bytes_of(subgraph, tensor) >= LARGE for tensor in _tensors(operator)
        ):
            large.append(place)
    return sorted({*edges, *pairwise(stateful), *pairwise(large)})


def serialized(edges: Sequence[Sequence[tuple[int, int]]]) -> bytes:
    """The metadata for the edges of all subgraphs."""
    data = bytearray(_varint(_VERSION) + _varint(len(edges)))
    for of_subgraph in edges:
        data += _varint(len(of_subgraph))
        for edge in of_subgraph:
            for place in edge:
                data += _varint(2 * place)  # zigzag: odd ones are negative
    return bytes(data)


def bytes_of(subgraph: Any, tensor: int) -> int:
    """What a tensor of a subgraph takes, as if it were of float32: the others are small."""
    shape = subgraph.tensors[tensor].shape
    return 4 * math.prod(int(size) for size in (() if shape is None else shape))


def _needs(operators: Sequence[Any], builtin: Callable[[Any], int]) -> list[list[int]]:
    """For each op the earlier ones that must have run: what it reads, and whoever used its variables before.

    A call may use any variable: nothing that uses one passes it.
    """
    made_by = _makers(operators)
    variables: dict[int, Any] = {}
    users: dict[Any, list[int]] = defaultdict(list)
    readers: set[int] = set()
    last_call: int | None = None
    needs: list[set[int]] = []
    for index, operator in enumerate(operators):
        kind, inputs = builtin(operator), [int(tensor) for tensor in operator.inputs]
        wanted = {made_by[tensor] for tensor in inputs if tensor in made_by}
        touched = {variables[tensor] for tensor in inputs if tensor in variables}
        if kind == _Operator.VAR_HANDLE:
            variables[int(operator.outputs[0])] = operator.builtinOptions.sharedName
        if kind == _Operator.READ_VARIABLE:
            readers.add(index)
        if kind in _CALLS:
            touched = set(variables.values())
        for variable in touched:
            wanted |= {user for user in users[variable] if not {user, index} <= readers}
            users[variable].append(index)
        if last_call is not None and (touched or kind in _CALLS):
            wanted.add(last_call)
        if kind in _CALLS:
            last_call = index
        needs.append(wanted)
    _keep_values(operators, needs, users, builtin)
    return [sorted(wanted) for wanted in needs]


def _makers(operators: Sequence[Any]) -> dict[int, int]:
    """The place of the op that makes each tensor."""
    return {int(tensor): place for place, each in enumerate(operators) for tensor in each.outputs}


def _keep_values(
    operators: Sequence[Any],
    needs: Sequence[set[int]],
    users: Mapping[Any, Sequence[int]],
    builtin: Callable[[Any], int],
) -> None:
    """Lets an update of a variable that is its last use wait for all that need the value before.

    Runtimes hand out the variable itself, not a copy. A delegate lets the op that makes the new value write it there,
    and takes a transposed value for the variable read in another order.
    """
    consumers: dict[int, list[int]] = defaultdict(list)
    made_by = _makers(operators)
    for index, operator in enumerate(operators):
        for tensor in map(int, operator.inputs):
            consumers[tensor].append(index)
    for of_variable in users.values():
        *before, last = of_variable
        if len(operators[last].outputs):
            continue
        maker = made_by.get(int(operators[last].inputs[1]), last)
        handing = [each for each in before if builtin(operators[each]) == _Operator.READ_VARIABLE]
        for user in handing:
            for each in consumers[int(operators[user].outputs[0])]:
                if each != last:
                    needs[last].add(each)
                if each < maker:  # What comes behind it may need what it makes.
                    needs[maker].add(each)
                if builtin(operators[each]) in MOVES:
                    handing.append(each)


def _reached(needs: Sequence[Sequence[int]]) -> list[int]:
    """For each op the set of all that it needs and itself, a bit each: last layers' gradients need the fewest."""
    order: dict[int, None] = {}
    for wanted in range(len(needs)):
        _append(wanted, needs, order)
    reached = [0] * len(needs)
    for index in order:
        reached[index] = functools.reduce(or_, (reached[each] for each in needs[index]), 1 << index)
    return reached


def _shared(sets: Iterable[int]) -> int:
    """What is in more than one set."""
    once = twice = 0
    for each in sets:
        once, twice = once | each, twice | once & each
    return twice


def _append(wanted: int, needs: Sequence[Sequence[int]], order: dict[int, None]) -> None:
    """Appends an op behind those that it needs and that are not there yet.

    What was made last is made first: it is the longest way, and what others need on it would wait. What is short, like
    the mask of a gradient, would wait itself.
    """
    waiting = [wanted]
    while waiting:
        missing = [each for each in needs[waiting[-1]] if each not in order]
        if missing and waiting[-1] not in order:
            waiting.extend(missing)
        else:
            order.setdefault(waiting.pop())


def _tensors(operator: Any) -> list[int]:
    return [int(tensor) for tensor in (*operator.inputs, *operator.outputs) if tensor >= 0]


def _handles(subgraph: Any, operator: Any) -> bool:
    return any(subgraph.tensors[tensor].type == schema.TensorType.RESOURCE for tensor in _tensors(operator))


def _varint(number: int) -> bytes:
    data = bytearray()
    while number >= 1 << 7:
        data.append(number % (1 << 7) + (1 << 7))
        number >>= 7
    return bytes([*data, number])
