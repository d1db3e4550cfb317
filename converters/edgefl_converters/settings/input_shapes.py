"""Gives a model with unknown dimensions (a time length, an image size) the fixed ones that devices need."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from edgefl.errors import InvalidSettingError, ModelError, first_line

if TYPE_CHECKING:
    import keras

__all__ = ["InputShape", "TargetShape", "target_shapes", "with_input_shapes"]

Shape = tuple[int, ...]
InputShape = Sequence[int] | Mapping[str, Sequence[int]]
TargetShape = Sequence[int] | Mapping[str, Sequence[int]]
"""The shape of a row of the targets; ``()`` for one number a row."""


def with_input_shapes(model: keras.Model, shapes: InputShape) -> keras.Model:
    """The same model, with the same weights and compiled the same way, for inputs of fixed shape.

    Args:
        model: Sequential, Functional, or one that has never been called.
        shapes: without the batch; by input name where there are several.

    Returns:
        A new model; one that had no weights yet is built in place instead.

    Raises:
        InvalidSettingError: the shapes contradict the model's inputs or name others.
        ModelError: the model cannot be made with these shapes.
    """
    import keras
    import numpy as np

    old = getattr(model, "inputs", None)
    if not model.built and not old:
        first = _sizes(shapes) if not isinstance(shapes, Mapping) else None
        if first is None:
            raise InvalidSettingError(
                "The model does not know its inputs yet, so they have no names.", hint="Give one shape, such as 100,6."
            )
        try:
            model(np.zeros((1, *first), np.float32))
        except Exception as error:
            raise ModelError(f"The model cannot be called with inputs of shape {first}: {first_line(error)}") from error
        return model
    if not old:
        raise InvalidSettingError(
            "An input shape can be set for Sequential and Functional models, this one is a class of its own.",
            hint="Call it once on data of that shape before converting.",
        )
    wanted = _by_name(shapes, [each.name for each in old])
    tensors = [_fixed(each, wanted.get(each.name)) for each in old]
    structure = old[0] if isinstance(model, keras.Sequential) else model.input  # a dict, where it takes one
    given = keras.tree.pack_sequence_as(structure, tensors)
    try:
        try:
            return _cloned(model, given)
        except Exception:  # of any kind: whatever the code of a layer raises that cannot be made again
            if isinstance(model, keras.Sequential):
                raise
            return _of_the_same_layers(model, given)
    except Exception as error:
        said = ", ".join(f"{each.name} {tuple(each.shape[1:])}" for each in tensors)
        raise ModelError(
            f"The model cannot be made for inputs of shape {said}: {first_line(error)}",
            hint="Choose a shape that its layers accept; weights whose shape depends on it cannot be carried over.",
        ) from error


def _cloned(model: Any, given: Any) -> Any:
    import keras

    clone = keras.models.clone_model(model, input_tensors=given)
    if len(clone.weights) != len(model.weights):
        # A layer that a model within it has too was copied twice: copied one by one, layers stay shared.
        clone = keras.models.clone_model(model, input_tensors=given, recursive=True)
    clone.set_weights(model.get_weights())
    return clone


def _of_the_same_layers(model: Any, given: Any) -> Any:
    import keras

    made = keras.Model(given, model._run_through_graph(given, operation_fn=lambda layer: layer), name=model.name)
    if model.compiled:
        made.compile_from_config(model.get_compile_config())
    return made


def target_shapes(given: TargetShape | None, outputs: Mapping[str, str]) -> dict[str, Shape]:
    """The shapes of rows of targets, by output.

    Args:
        given: for the only output, or by the name of an output or of its target; None for those that follow from the
            losses.
        outputs: names of the targets, by the names of outputs that have one.

    Raises:
        InvalidSettingError: a shape is none, or belongs to no target.
    """
    if given is None:
        return {}
    if not isinstance(given, Mapping):
        if len(outputs) > 1:
            raise InvalidSettingError(
                f"The model has {len(outputs)} targets, but `target_shape` has one shape without a name.",
                hint=f"Name their outputs: {', '.join(f'{name}=…' for name in outputs)}.",
            )
        return {name: _row(given) for name in outputs}
    known = {**{target: name for name, target in outputs.items()}, **{name: name for name in outputs}}
    unknown = [name for name in given if name not in known]
    if unknown:
        raise InvalidSettingError(
            f"`target_shape` has a shape for {unknown[0]!r}, which is no output with a target.",
            hint=f"Those are {', '.join(map(repr, outputs)) or 'none'}.",
        )
    return {known[name]: _row(shape) for name, shape in given.items()}


def _row(shape: Sequence[int]) -> Shape:
    return () if shape in ((), []) else _sizes(shape, "A target shape", "For two numbers a row: 2.")


def _sizes(
    shape: Sequence[int], what: str = "An input shape", example: str = "For 100 steps of 6 values: 100,6."
) -> Shape:
    sizes = tuple(shape)
    if not sizes or any(isinstance(each, bool) or not isinstance(each, int) or each < 1 for each in sizes):
        raise InvalidSettingError(
            f"{what} is whole numbers of at least 1 without the batch, got {sizes!r}.",
            hint=example,
        )
    return sizes


def _by_name(shapes: InputShape, names: list[str]) -> dict[str, Shape]:
    if not isinstance(shapes, Mapping):
        if len(names) > 1:
            raise InvalidSettingError(
                f"The model has {len(names)} inputs, but one shape without a name was given.",
                hint=f"Name them: {', '.join(f'{name}=…' for name in names)}.",
            )
        return {names[0]: _sizes(shapes)}
    unknown = [name for name in shapes if name not in names]
    if unknown:
        raise InvalidSettingError(
            f"The model has no input {unknown[0]!r}.", hint=f"Its inputs are {', '.join(map(repr, names))}."
        )
    return {name: _sizes(shape) for name, shape in shapes.items()}


def _fixed(tensor: Any, shape: Shape | None) -> Any:
    import keras

    known = tuple(tensor.shape[1:])
    shape = known if shape is None else shape
    if len(shape) != len(known) or any(a is not None and a != b for a, b in zip(known, shape)):
        raise InvalidSettingError(
            f"Input {tensor.name!r} has shape {known} without the batch, {shape} does not fit it.",
            hint="Only the dimensions that are None can be chosen.",
        )
    return keras.Input(shape, name=tensor.name, dtype=tensor.dtype)
