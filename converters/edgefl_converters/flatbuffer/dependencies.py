"""Says which ops of a converted file must run before which: by what they read, and by the variables that they use."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tensorflow.lite.python import schema_py_generated as schema

from edgefl_converters.flatbuffer.graph_index import GraphIndex

__all__ = ["CALLS", "MOVES", "needs_of"]

_Operator = schema.BuiltinOperator
CALLS = (_Operator.CALL_ONCE, _Operator.IF, _Operator.WHILE)
"""Ops that run other subgraphs, which may use any variable."""
MOVES = (_Operator.RESHAPE, _Operator.TRANSPOSE)
"""Ops whose result may be what they are given, seen in another way."""


def needs_of(index: GraphIndex, builtin: Callable[[Any], int]) -> list[list[int]]:
    """Returns for each op the earlier ones that must have run: what it reads, and whoever used its variables before.

    A call may use any variable: nothing that uses one passes it.

    Args:
        index: of the ops; all are told by their places in it.
        builtin: the builtin operator of an op.
    """
    variables: dict[int, Any] = {}
    users: dict[Any, list[int]] = defaultdict(list)
    readers: set[int] = set()
    last_call: int | None = None
    needs: list[set[int]] = []
    for place, (operator, inputs) in enumerate(zip(index.operators, index.inputs, strict=True)):
        kind = builtin(operator)
        wanted = {index.made_at[tensor] for tensor in inputs if tensor in index.made_at}
        touched = {variables[tensor] for tensor in inputs if tensor in variables}
        if kind == _Operator.VAR_HANDLE:
            variables[int(operator.outputs[0])] = operator.builtinOptions.sharedName
        if kind == _Operator.READ_VARIABLE:
            readers.add(place)
        if kind in CALLS:
            touched = set(variables.values())
        for variable in touched:
            wanted |= {user for user in users[variable] if not {user, place} <= readers}
            users[variable].append(place)
        if last_call is not None and (touched or kind in CALLS):
            wanted.add(last_call)
        if kind in CALLS:
            last_call = place
        needs.append(wanted)
    _keep_values(index, needs, users, builtin)
    return [sorted(wanted) for wanted in needs]


def _keep_values(
    index: GraphIndex,
    needs: Sequence[set[int]],
    users: Mapping[Any, Sequence[int]],
    builtin: Callable[[Any], int],
) -> None:
    """Lets an update of a variable that is its last use wait for all that need the value before.

    Runtimes hand out the variable itself, not a copy. A delegate lets the op that makes the new value write it there,
    and takes a transposed value for the variable read in another order.
    """
    operators = index.operators
    for of_variable in users.values():
        *before, last = of_variable
        if len(operators[last].outputs):
            continue
        maker = index.made_at.get(index.inputs[last][1], last)
        handing = [each for each in before if builtin(operators[each]) == _Operator.READ_VARIABLE]
        for user in handing:
            for each in index.read_at[int(operators[user].outputs[0])]:
                if each != last:
                    needs[last].add(each)
                if each < maker:  # What comes behind it may need what it makes.
                    needs[maker].add(each)
                if builtin(operators[each]) in MOVES:
                    handing.append(each)
