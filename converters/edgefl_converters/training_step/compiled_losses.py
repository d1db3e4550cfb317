"""The losses that a model was compiled with, each with its target and its output."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import keras
from keras.src.trainers.compile_utils import CompileLoss

from edgefl.errors import ModelError
from edgefl_converters.training_step.loss_forms import LossForm
from edgefl_converters.training_step.specification import Specification

__all__ = ["at", "compiled_losses"]


def compiled_losses(specification: Specification, made: Callable[[Any, LossForm], Any]) -> CompileLoss | None:
    """The compiled losses of a model, with what is ``made`` of each and of its form in its place; None without.

    Raises:
        ModelError: they do not fit the model's outputs.
    """
    compiled = specification.model._compile_loss
    if compiled is None:
        return None
    fresh = CompileLoss(compiled._user_loss, compiled._user_loss_weights, output_names=compiled.output_names)
    predictions = specification.nesting.symbolic_outputs()
    try:
        fresh.build(specification.nest_targets([port.symbolic for port in specification.targets]), predictions)
    except (ValueError, KeyError, TypeError) as error:
        raise ModelError(
            f"The compiled loss does not fit the model's outputs: {error}",
            hint="Give one loss, or one per output by the outputs' names.",
        ) from error
    fresh._flat_losses = [
        each._replace(loss=made(each.loss, form))
        for each, form in zip(fresh._flat_losses, _in_order_of(fresh, specification.losses), strict=True)
    ]
    # With several losses Keras tracks each in a metric of its own, whose variables must not become part of the graph.
    fresh._metrics = [None] * len(fresh._flat_losses)
    return fresh


def _in_order_of(compiled: CompileLoss, forms: Sequence[LossForm]) -> list[LossForm]:
    """Puts forms of losses into the order in which Keras keeps the losses of nested outputs."""
    by_output = {form.output: form for form in forms}
    structure = compiled._y_pred_build_structure
    places = keras.tree.pack_sequence_as(structure, list(range(len(keras.tree.flatten(structure)))))
    return [by_output[at(each.path, places)] for each in compiled._flat_losses]


def at(path: Sequence[Any], structure: Any) -> Any:
    """The element of a nested structure at a path."""
    for key in path:
        structure = structure[key]
    return structure
