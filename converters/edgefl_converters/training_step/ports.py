"""The tensors that a model takes and gives."""

from __future__ import annotations

from collections.abc import Container, Sequence
from dataclasses import dataclass
from typing import Any

import keras

__all__ = ["Nesting", "Port", "target_name"]


@dataclass(frozen=True)
class Port:
    """A tensor that a model takes or gives.

    Attributes:
        name: stable name.
        shape: with the static batch first.
        dtype: name of the type.
        output: for a target, index of the model output that it is compared with.
        classes: for a target of integer labels, their number; else None.
        bounds: for a target of a loss that is made for numbers between two, these; else None.
        ignored: for a target of integer labels, the one whose positions the loss leaves out; else None.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    output: int = 0
    classes: int | None = None
    bounds: tuple[float, float] | None = None
    ignored: int | None = None

    @property
    def symbolic(self) -> Any:
        """A symbolic Keras tensor of this shape and type."""
        return keras.KerasTensor(self.shape, self.dtype)


def target_name(outputs: Sequence[Port], index: int, taken: Container[str]) -> str:
    """The name of an output's target, which no input has."""
    name = "y" if len(outputs) == 1 else f"y_{outputs[index].name}"
    while name in taken:
        name = f"target_{name}"
    return name


@dataclass(frozen=True)
class Nesting:
    """The nesting of what a model takes and gives.

    Attributes:
        inputs: in the model's order.
        outputs: in the model's order.
        input_structure: how the model's call nests its inputs.
        output_structure: how the model nests its outputs.
    """

    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    input_structure: Any
    output_structure: Any

    def of_inputs(self, tensors: Sequence[Any]) -> Any:
        """Gives flat inputs the nesting that the model's call takes."""
        return keras.tree.pack_sequence_as(self.input_structure, list(tensors))

    def of_targets(self, targets: Sequence[Port], tensors: Sequence[Any]) -> Any:
        """Gives flat targets the nesting of the model's outputs; an output without a target gets None."""
        if not targets:
            return None
        if not keras.tree.is_nested(self.output_structure):
            return tensors[0]
        by_output: list[Any] = [None] * len(self.outputs)
        for target, tensor in zip(targets, tensors):
            by_output[target.output] = tensor
        return keras.tree.pack_sequence_as(self.output_structure, by_output)

    def symbolic_outputs(self) -> Any:
        """Symbolic outputs, nested."""
        return keras.tree.pack_sequence_as(self.output_structure, [port.symbolic for port in self.outputs])
