"""Which ops of a converted file make and read each tensor."""

from __future__ import annotations

from collections import defaultdict
from typing import Any, NamedTuple

__all__ = ["Uses", "uses_of"]


class Uses(NamedTuple):
    """Ops by the tensors that they read or write."""

    made_by: dict[int, Any]
    read_by: dict[int, list[Any]]

    def around(self, tensor: int) -> set[int]:
        """The identities of all of a tensor."""
        maker = self.made_by.get(tensor)
        return {id(each) for each in (*self.read_by[tensor], *([] if maker is None else [maker]))}


def uses_of(subgraph: Any) -> Uses:
    """The uses of all tensors of a subgraph in object form."""
    made_by: dict[int, Any] = {}
    read_by: dict[int, list[Any]] = defaultdict(list)
    for operator in subgraph.operators:
        for tensor in map(int, operator.outputs):
            made_by[tensor] = operator
        for tensor in map(int, operator.inputs):
            read_by[tensor].append(operator)
    return Uses(made_by, read_by)
