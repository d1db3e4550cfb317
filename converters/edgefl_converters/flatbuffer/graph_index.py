"""Knows which ops of a converted file make and read each tensor: the one index that all passes look into."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

__all__ = ["GraphIndex"]


class GraphIndex:
    """The ops of a subgraph by the tensors that they make and read.

    It says how the subgraph was when the index was made: `is_current` tells whether it still is.

    Args:
        subgraph: in object form.
        operators: its ops in an order that is only considered; by default as they are in it.

    Attributes:
        subgraph: the subgraph.
        operators: its ops; everything else here is told by their places in this list.
        inputs: the tensors that each op reads, as the op lists them.
        made_at: the place of the op that makes each tensor; what is given to a subgraph, and constants, are not in it.
        read_at: the places of the ops that read each tensor, in order; an op that reads one twice is there twice.
    """

    def __init__(self, subgraph: Any, operators: Iterable[Any] | None = None) -> None:
        self.subgraph = subgraph
        self.operators: Sequence[Any] = list(subgraph.operators if operators is None else operators)
        self.inputs = [_tensors(each.inputs) for each in self.operators]
        self._outputs = [_tensors(each.outputs) for each in self.operators]
        self.made_at: dict[int, int] = {}
        self.read_at: defaultdict[int, list[int]] = defaultdict(list)
        for place, (read, made) in enumerate(zip(self.inputs, self._outputs, strict=True)):
            self.made_at.update((tensor, place) for tensor in made)
            for tensor in read:
                self.read_at[tensor].append(place)

    def is_current(self) -> bool:
        """Tells whether the subgraph still has these ops in this order, and they read and make the same tensors."""
        return len(self.subgraph.operators) == len(self.operators) and all(
            now is then and _tensors(now.inputs) == inputs and _tensors(now.outputs) == outputs
            for now, then, inputs, outputs in zip(
                self.subgraph.operators, self.operators, self.inputs, self._outputs, strict=True
            )
        )

    def maker(self, tensor: int) -> Any:
        """The op that makes a tensor, or None."""
        place = self.made_at.get(tensor)
        return None if place is None else self.operators[place]

    def readers(self, tensor: int) -> list[Any]:
        """The ops that read a tensor, in order; one that reads it twice is there twice."""
        return [self.operators[place] for place in self.read_at[tensor]]


def _tensors(indices: Any) -> tuple[int, ...]:
    return tuple(map(int, indices))
