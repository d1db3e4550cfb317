"""Knows which function emits which TensorFlow op: one small function an op, found by its decorator.

Whoever walks a graph looks here, and knows no function by its name: the package imports the modules that hold them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import tensorflow as tf

from edgefl_converters.emission.constants import Constants

__all__ = [
    "EMITTED_AS_THEY_ARE",
    "LOWERINGS",
    "Context",
    "Emitter",
    "Lowering",
    "lowering",
    "lowering_for",
    "lowering_where",
]


class Context(Protocol):
    """Holds what a lowering may know beyond its op and its inputs."""

    @property
    def seed(self) -> tf.Tensor | None:
        """The int32 input of shape ``[1]`` that random numbers are a function of; None where there is none."""

    @property
    def constants(self) -> Constants:
        """Makes constants of the new graph, and tells their values."""

    @property
    def untiled(self) -> dict[str, tf.Tensor]:
        """Names of tiled tensors, to what they repeat along some dimensions; lowerings add to it."""

    @property
    def factors(self) -> dict[str, tuple[tf.Tensor, tf.Tensor]]:
        """Names of products ``left^T right`` of two matrices, to these two; lowerings add to it."""

    def next_stream(self) -> int:
        """A number of its own for each random op of the graph."""

    def drawn(self, op: Any) -> tuple[Sequence[int], int]:
        """The shape of all that a random op draws for a batch, and where in it the numbers that are wanted begin."""

    def shared(self, key: Any, make: Callable[[], tf.Tensor]) -> tf.Tensor:
        """A tensor that several ops need, made once; the key holds everything that it depends on."""


class Emitter(Context, Protocol):
    """Holds what a function may know, and do, that emits an op on variables or one that calls functions."""

    values: dict[Any, tf.Tensor]
    """Current values of the variables that were needed so far, by their keys."""
    streams: int
    """The random ops that have been given a number, counted."""

    def value(self, key: Any) -> tf.Tensor:
        """The current value of a variable."""

    def assign(self, key: Any, value: tf.Tensor) -> None:
        """Gives a variable a new value."""

    def emit(self, graph: Any, bound: Mapping[str, Any], results: Sequence[tf.Tensor]) -> list[Any]:
        """Emits what results of a traced graph need; ``bound`` names its inputs."""

    def branch(self) -> Emitter:
        """An emitter for the body of a branch or loop, which starts from the values of this one."""


Lowering = Callable[[Any, Sequence[Any], Emitter], "Sequence[Any] | None"]
"""Takes the traced op, its new inputs and what emits; returns its new outputs, or None to keep the op as it is."""

LOWERINGS: dict[str, Lowering] = {}

_FORMS: list[tuple[Callable[[Any], bool], Lowering]] = []

EMITTED_AS_THEY_ARE: set[str] = set()
"""Op types that stay what they are though a function emits them; reports count them as kept."""


def lowering(*op_types: str, as_they_are: bool = False) -> Callable[[Lowering], Lowering]:
    """Registers a function as the lowering of one or several TensorFlow op types.

    Args:
        op_types: whatever the function emits.
        as_they_are: True for `EMITTED_AS_THEY_ARE`.
    """

    def register(function: Lowering) -> Lowering:
        for op_type in op_types:
            if op_type in LOWERINGS:
                raise ValueError(f"{op_type} has two lowerings.")
            LOWERINGS[op_type] = function
        if as_they_are:
            EMITTED_AS_THEY_ARE.update(op_types)
        return function

    return register


def lowering_where(applies: Callable[[Any], bool]) -> Callable[[Lowering], Lowering]:
    """Registers a function as the lowering of all ops of a form, of whatever type; it goes before theirs.

    Args:
        applies: tells whether a traced op is of the form.
    """

    def register(function: Lowering) -> Lowering:
        _FORMS.append((applies, function))
        return function

    return register


def lowering_for(op: Any) -> Lowering | None:
    """The lowering of a traced op; None for one that is emitted as it is."""
    return next((lower for applies, lower in _FORMS if applies(op)), LOWERINGS.get(op.type))
