"""Orders the ops of a converted file: each as late as possible, so that tensors do not wait in memory.

A weight is updated as soon as its gradient is there, and what only the backward pass needs is computed there. A
delegate would undo that, see `control_dependencies`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Sequence
from operator import or_
from typing import Any

from edgefl_converters.flatbuffer.dependencies import CALLS, needs_of
from edgefl_converters.flatbuffer.graph_index import GraphIndex
from edgefl_converters.flatbuffer.pass_context import PassContext
from edgefl_converters.flatbuffer.passes.base import register_pass

__all__ = ["as_late_as_possible", "schedule"]


@register_pass("scheduling", after="variable_reads")
def schedule(context: PassContext) -> None:
    """Gives the ops of all subgraphs an order in which tensors do not wait in memory."""
    for subgraph in context.file.subgraphs:
        subgraph.operators = as_late_as_possible(context.index(subgraph), context.file.builtin)


def as_late_as_possible(index: GraphIndex, builtin: Callable[[Any], int]) -> list[Any]:
    """The ops of a subgraph in another order: first the updates, as their gradients come, then what only outputs need.

    Args:
        index: of the subgraph.
        builtin: the builtin operator of an op.
    """
    operators = index.operators
    needs = needs_of(index, builtin)
    results = [index.made_at[tensor] for tensor in map(int, index.subgraph.outputs) if tensor in index.made_at]
    calls = [place for place, each in enumerate(operators) if builtin(each) in CALLS]
    updates = [place for place, each in enumerate(operators) if not len(each.outputs)]
    given = set(map(int, index.subgraph.inputs))
    data = sum(1 << place for place, tensors in enumerate(index.inputs) if given & set(tensors))
    reached = _reached(needs)
    trained = [place for place in updates if reached[place] & data]
    shared = _shared([reached[place] for place in trained])
    # What an update alone needs, such as a filter's gradient, says nothing about when it can begin.
    trained.sort(key=lambda place: ((reached[place] & shared).bit_count(), reached[place].bit_count()))
    order: dict[int, None] = {}
    # No delegate takes losses and counters: amid the others they would take its partitions apart.
    for wanted in (*calls[:1], *trained, *results, *updates, *range(len(operators))):
        _append(wanted, needs, order)
    return [operators[place] for place in order]


def _reached(needs: Sequence[Sequence[int]]) -> list[int]:
    """Returns for each op all that it needs and itself as a set, a bit each: last layers' gradients need the fewest."""
    order: dict[int, None] = {}
    for wanted in range(len(needs)):
        _append(wanted, needs, order)
    reached = [0] * len(needs)
    for index in order:
        reached[index] = functools.reduce(or_, (reached[each] for each in needs[index]), 1 << index)
    return reached


def _shared(sets: Iterable[int]) -> int:
    """Returns what is in more than one set."""
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
