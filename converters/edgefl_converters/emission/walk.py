"""Emits a traced graph again, op by op, into the graph that is being built.

Variables become values: a variable is read once where it is first needed and assigned once at the end, whatever the
traced graph did in between. So one op that only TensorFlow knows on variables (a scatter, an update in a branch)
cannot send all of them to another runtime.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import tensorflow as tf
from tensorflow.python.framework import ops

from edgefl.errors import EdgeflError, UnsupportedModelError
from edgefl_converters.emission.constants import Constants
from edgefl_converters.emission.registry import EMITTED_AS_THEY_ARE, lowering_for
from edgefl_converters.emission.traced_ops import folded, static_shape
from edgefl_converters.emission.walk_values import Handle
from edgefl_converters.training_step.traced_graphs import in_order

__all__ = ["EmissionError", "Origin", "Origins", "Walk"]


@dataclass(frozen=True)
class Origin:
    """Says where a new op comes from.

    Attributes:
        op_type: the traced TensorFlow op.
        op_name: its name in the traced graph, which leads to the layer.
        lowered: True when builtin ops stand in for it.
    """

    op_type: str
    op_name: str
    lowered: bool


class Origins:
    """Every op that was emitted: names in the new graph are numbers into it, the same in every process."""

    def __init__(self) -> None:
        self.all: list[Origin] = []

    def add(self, origin: Origin) -> str:
        """Records an op and returns its name in the new graph."""
        self.all.append(origin)
        # The converter puts digits behind names that repeat: they must not become part of the number.
        return f"op{len(self.all) - 1}_"

    def named(self, text: str) -> list[Origin]:
        """Those whose names a text of the converter has; of an op that it fused the last one comes first."""
        numbers = map(int, re.findall(r"\bop(\d+)_", text))
        return [self.all[number] for number in numbers if number < len(self.all)]


class Walk:
    """The state of one emission.

    Args:
        read: makes a tensor with the current value of a variable, given the variable's key.
        origins: filled with what was emitted.
        seed: the input that random numbers are a function of, shape ``[1]`` int32.
        constants: makes the constants of all signatures of a file; by default all of them are in the graph.
    """

    def __init__(
        self,
        read: Callable[[Any], tf.Tensor],
        origins: Origins,
        seed: tf.Tensor | None = None,
        constants: Constants | None = None,
    ) -> None:
        self._read = read
        self._origins = origins
        self.constants = constants or Constants()
        self.streams = 0
        self._drawn: Callable[[Any], tuple[Sequence[int], int]] | None = None
        self.seed = seed
        self.values: dict[Any, tf.Tensor] = {}
        self.assigned: dict[Any, None] = {}
        self._shared: dict[Any, tf.Tensor] = {}
        self.untiled: dict[str, tf.Tensor] = {}
        self.factors: dict[str, tuple[tf.Tensor, tf.Tensor]] = {}

    # What lowerings see (registry.Context).

    def next_stream(self) -> int:
        """A number of its own for each random op."""
        self.streams += 1
        return self.streams

    def drawn(self, op: Any) -> tuple[Sequence[int], int]:
        """The shape of all that a random op draws for a batch, and where in it the numbers that are wanted begin."""
        return (static_shape(op.outputs[0]), 0) if self._drawn is None else self._drawn(op)

    def shared(self, key: Any, make: Callable[[], tf.Tensor]) -> tf.Tensor:
        """A tensor that several ops need, made once."""
        key = (id(ops.get_default_graph()), key)
        if key not in self._shared:
            self._shared[key] = make()
        return self._shared[key]

    # The walk.

    def begin_part(self, seed: tf.Tensor | None, drawn: Callable[[Any], tuple[Sequence[int], int]]) -> None:
        """Lets what is emitted from now on draw, by the streams of the first ops again, numbers of other rows.

        Args:
            seed: as the walk's.
            drawn: what `drawn` is to return for a random op of the traced graph.
        """
        self.seed, self._drawn, self.streams = seed, drawn, 0

    def emit(self, graph: Any, bound: Mapping[str, Any], results: Sequence[tf.Tensor]) -> list[tf.Tensor]:
        """Emits what the results need, and everything that changes a variable.

        Args:
            graph: the traced graph.
            bound: names of its input tensors to new tensors or variable handles (`handle`).
            results: tensors of the traced graph.

        Returns:
            New tensors for the results.
        """
        environment: dict[str, Any] = dict(bound)
        for given in graph.inputs if hasattr(graph, "inputs") else ():
            _learn_shape(given, bound.get(given.name))
        for op in in_order(graph, results):
            self._emit_op(op, environment)
        return [environment[result.name] for result in results]

    @staticmethod
    def handle(key: Any) -> Any:
        """Returns what stands for a variable among the bound inputs."""
        return Handle(key)

    def value(self, key: Any) -> tf.Tensor:
        """The current value of a variable."""
        if key not in self.values:
            self.values[key] = self._read(key)
        return self.constants.here(self.values[key])

    def assign(self, key: Any, value: tf.Tensor) -> None:
        """Gives a variable a new value."""
        self.values[key] = value
        self.assigned[key] = None

    def _emit_op(self, op: Any, environment: dict[str, Any]) -> None:
        if op.type in ("Placeholder", "NoOp", "Assert"):
            return
        inputs = [environment[tensor.name] for tensor in op.inputs]
        if op.type in ("Identity", "IdentityN"):
            for old, new in zip(op.outputs, inputs):
                environment[old.name] = new
                _learn_shape(old, new)
            return
        try:
            outputs = self._lower_or_copy(op, inputs)
        except UnsupportedModelError as error:
            error.ops = error.ops or (op.type,)
            raise
        except EdgeflError:
            raise
        except Exception as error:
            raise EmissionError(op, error) from error
        for old, new in zip(op.outputs, outputs):
            if isinstance(new, tf.Tensor):
                new = _same_shape(op, old, new)
                _learn_shape(old, new)
            environment[old.name] = new

    def _lower_or_copy(self, op: Any, inputs: Sequence[Any]) -> Sequence[Any]:
        lower = lowering_for(op)
        if lower is not None:
            number = len(self._origins.all)
            name = self._origins.add(Origin(op.type, op.name, lowered=op.type not in EMITTED_AS_THEY_ARE))
            with tf.name_scope(name):
                outputs = lower(op, inputs, self)
            if outputs is not None:
                return outputs
            self._origins.all[number] = Origin(op.type, op.name, lowered=False)
            return _copy(op, inputs, f"{name}kept")
        name = self._origins.add(Origin(op.type, op.name, lowered=False))
        return _copy(op, _with_known_sizes(op, inputs), name)

    def branch(self) -> Walk:
        """A walk for the body of a conditional, which starts from the values of this one."""
        inner = Walk(self.value, self._origins, self.seed, self.constants)
        inner.streams, inner._drawn = self.streams, self._drawn
        return inner


class EmissionError(Exception):
    """An op could not be emitted again; ``op`` is the traced one."""

    def __init__(self, op: Any, error: Exception) -> None:
        super().__init__(f"{type(error).__name__}: {error}")
        self.op = op


def _copy(op: Any, inputs: Sequence[tf.Tensor], name: str) -> Sequence[tf.Tensor]:
    # Attributes that begin with an underscore talk about the traced graph: a copied `_gradient_op_type` breaks saving.
    attributes = {key: value for key, value in op.node_def.attr.items() if not key.startswith("_")}
    types = [tensor.dtype for tensor in op.outputs]
    made = ops.get_default_graph()._create_op_internal(op.type, list(inputs), types, name=name, attrs=attributes)
    return tuple(made.outputs)


def _learn_shape(old: tf.Tensor, new: Any) -> None:
    """Tells the traced graph a shape that only shows where branches are chosen: sizes follow from it further on."""
    if isinstance(new, tf.Tensor) and new.shape.is_fully_defined() and not old.shape.is_fully_defined():
        old.set_shape(new.shape)


def _with_known_sizes(op: Any, inputs: Sequence[tf.Tensor]) -> Sequence[tf.Tensor]:
    """Constants for sizes and the like, where the traced graph computed them and lost what shape comes out."""
    if all(each.shape.is_fully_defined() for each in op.outputs):
        return inputs
    known = [folded(own) if own.dtype.is_integer and own.shape.rank in (0, 1) else None for own in op.inputs]
    return [new if value is None else tf.constant(value, new.dtype) for new, value in zip(inputs, known)]


def _same_shape(op: Any, old: tf.Tensor, new: tf.Tensor) -> tf.Tensor:
    if not old.shape.is_compatible_with(new.shape):
        raise AssertionError(f"Lowering of {op.type} gave shape {new.shape}, expected {old.shape} ({op.name}).")
    if not new.shape.is_fully_defined() and old.shape.is_fully_defined():
        new.set_shape(old.shape)
    return new
