"""Causes of a difference that are found out by running the Keras model itself, so that nothing has to be guessed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from edgefl.errors import listed
from edgefl_converters.blame.attribution import describe_layer
from edgefl_converters.training_step.specification import Specification

__all__ = ["Causes", "checked_causes"]

Arrays = Sequence[NDArray[Any]]
_NOTICED = 1e-4
"""Relative change of an output from which rows feel each other: other rows may change the order of a sum, not more."""


@dataclass(frozen=True)
class Causes:
    """The causes that were found, in words; None where there is none.

    Attributes:
        unsteady: what computes something else each time, with the same rows, weights and random numbers.
        mixing: what computes something else for the first rows when the other rows change.
        added: the layers that add a loss over the batch.
    """

    unsteady: str | None = None
    mixing: str | None = None
    added: str | None = None

    @property
    def of_padding(self) -> str:
        """Sentences that say why rows of weight 0 are felt, and what to do; or that no cause was found."""
        told = []
        if self.mixing:
            told.append(
                f"In Keras too, {self.mixing} computes something else for the first rows when the other rows change, "
                "as a statistic over the batch does: have it compute each row by itself."
            )
        if self.added:
            told.append(
                f"{self.added[0].upper()}{self.added[1:]} adds a loss over all rows of a batch (add_loss): express it "
                "for each row, or as a regulariser of weights."
            )
        return " ".join(told) or "In Keras, neither a layer nor an added loss was found that feels the other rows."


def checked_causes(specification: Specification, inputs: Arrays, real: int) -> Causes:
    """Runs the model forward, as in training, and looks for what explains a difference; changes nothing.

    Args:
        specification: of the model.
        inputs: one full batch.
        real: how many of the first rows count; the others are replaced by them, as a batch is filled up.
    """
    model = specification.model
    filled = [array[np.resize(np.arange(real), len(array))] for array in inputs]
    try:
        with _unchanged(model) as restore:
            names, run = _outputs(specification)
            first = run(inputs)
            added = [layer for layer in model._flatten_layers() if layer._losses and not layer.activity_regularizer]
            restore()
            again = run(inputs)
            restore()
            changed = run(filled)
    except Exception:
        return Causes()  # never worse than the plain error
    unsteady = next((name for name, a, b in zip(names, first, again, strict=True) if _differ(a, b)), None)
    mixing = next(
        (name for name, a, b in zip(names, first, changed, strict=True) if len(a) and _differ(a[:real], b[:real])), None
    )
    told = listed((describe_layer(layer) for layer in added), 3) if added else None
    return Causes(unsteady, None if unsteady else mixing, told)


def _outputs(specification: Specification) -> tuple[list[str], Any]:
    """The layers of a model in the order of their calls, and a function that returns what each gives."""
    model = specification.model
    functional = getattr(model, "_functional", None) or model
    by_depth: dict[int, Any] = getattr(functional, "_nodes_by_depth", None) or {}
    names, tensors = [], []
    for depth in sorted(by_depth, reverse=True):
        for node in by_depth[depth]:
            if node.operation is functional or isinstance(node.operation, keras.layers.InputLayer):
                continue
            for tensor in node.outputs:
                operation = node.operation
                told = describe_layer(operation) if isinstance(operation, keras.Layer) else repr(operation.name)
                names.append(told)
                tensors.append(tensor)
    if not tensors:
        names = [f"the model {model.name!r}"] * len(specification.outputs)
        return names, lambda inputs: _flat(model(specification.nesting.of_inputs(list(inputs)), training=True))
    watched = keras.Model(functional.inputs, tensors)
    return names, lambda inputs: _flat(watched(list(inputs), training=True))


def _flat(outputs: Any) -> list[NDArray[Any]]:
    return [np.asarray(keras.ops.convert_to_numpy(each), np.float64) for each in keras.tree.flatten(outputs)]


def _differ(first: NDArray[Any], second: NDArray[Any]) -> bool:
    if first.shape != second.shape:
        return True
    scale = float(np.max(np.abs(first), initial=0.0))
    return bool(np.max(np.abs(first - second), initial=0.0) > _NOTICED * (scale or 1.0))


@contextmanager
def _unchanged(model: Any) -> Iterator[Any]:
    """Gives a function that puts all variables back, seeds of random numbers too; they are put back at the end."""
    variables = list(model.variables)
    values = [keras.ops.convert_to_numpy(variable) for variable in variables]

    def restore() -> None:
        for variable, value in zip(variables, values, strict=True):
            variable.assign(value)

    try:
        yield restore
    finally:
        restore()
