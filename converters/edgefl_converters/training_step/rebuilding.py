"""A second copy of a Keras model, also in another float type."""

from __future__ import annotations

import contextlib
import inspect
import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import keras
from keras.src.models.functional import Functional

from edgefl.errors import UnsupportedModelError, first_line
from edgefl_converters.models.adapter_layers import adapt_like
from edgefl_converters.models.loading import compiled_with
from edgefl_converters.models.named_model import NamedModel
from edgefl_converters.training_step.specification import Specification, specify

__all__ = ["compiled_copy", "own_objects", "rebuild"]

_LAMBDA = "OriginalLambda"
_LARGE = 1 << 18
"""Numbers in a variable that is not drawn."""
_POLICIES = {
    each.__name__
    for each in vars(keras.dtype_policies).values()
    if inspect.isclass(each) and issubclass(each, keras.DTypePolicy)
}


def rebuild(
    specification: Specification, dtype: str, *, in_place_of: Collection[str] = frozenset({"float32"})
) -> keras.Model:
    """Makes a copy of a model with other variables of the same names and values; not compiled.

    Args:
        specification: of the model.
        dtype: ``float32`` or ``float64``: what the copy computes in.
        in_place_of: types, and policies, of which the model has that instead.

    Raises:
        Exception: of any kind, Keras's or the model's own: it cannot be rebuilt.
    """
    model = specification.model
    with _large_variables_at_zero():
        try:
            copy = _from_config(model, dtype, in_place_of)
        except Exception:  # whatever the model's own code raises: it may still be made as it was the first time
            if isinstance(model, (keras.Sequential, Functional)):
                raise
            copy = _from_constructor(specification, dtype)
        if len(copy.variables) != len(model.variables) and isinstance(model, Functional):
            copy = _layer_by_layer(model, dtype, in_place_of)
    adapt_like(copy, specification.named)
    if list(NamedModel(copy).variables) != list(specification.named.variables):
        raise ValueError("the rebuilt model has other variables than the original")
    _carry_over(model, copy)
    return copy


@contextlib.contextmanager
def _large_variables_at_zero() -> Iterator[None]:
    """Lets large variables begin at zero: drawing numbers that are replaced takes several times their memory."""
    original = keras.Variable._initialize_with_initializer

    def initialize(variable: Any, initializer: Any) -> None:
        large = math.prod(variable._shape) >= _LARGE
        original(variable, keras.initializers.Zeros() if large else initializer)

    keras.Variable._initialize_with_initializer = initialize
    try:
        yield
    finally:
        keras.Variable._initialize_with_initializer = original


def compiled_copy(model: Any) -> Any:
    """A copy of a built and compiled model, with the same weights and compiled the same way.

    Raises:
        UnsupportedModelError: Keras cannot rebuild it from its own configuration.
    """
    specification = specify(model, batch_size=1)
    try:
        copy = rebuild(specification, "float32")
        copy.compile(**compiled_with(model))
    except Exception as error:
        raise UnsupportedModelError(
            f"Keras cannot copy the model, so that adapters would have to go into your own: {first_line(error)}",
            hint="Give module:function that makes it, or give custom classes a get_config().",
        ) from error
    return copy


def _carry_over(model: Any, copy: Any) -> None:
    """Copies what a configuration does not hold: weights, and which of them are trained."""
    for variable, own in zip(model.variables, copy.variables, strict=True):
        own.assign(keras.ops.cast(variable, own.dtype))
        own.trainable = variable.trainable
    for layer, own in zip(model._flatten_layers(), copy._flatten_layers(), strict=True):
        own._trainable = layer._trainable
        if isinstance(own, keras.layers.Normalization) and own.input_mean is None:
            own.finalize_state()  # it computes with constants made from its variables


def own_objects(model: Any) -> dict[str, Any]:
    """Classes and functions of the user's own that a model is made of, by the names that its configuration uses."""
    classes = {type(each) for each in (model, *model._flatten_layers())}
    foreign = [each for each in classes if not each.__module__.startswith("keras.")]
    own: dict[str, Any] = {each.__name__: each for each in foreign}
    own.update((keras.saving.get_registered_name(each), each) for each in foreign)
    own.update((each.__name__, each) for layer in model._flatten_layers() for each in _functions(layer))
    return own


def _from_config(model: Any, dtype: str, in_place_of: Collection[str]) -> Any:
    own = own_objects(model)
    own[_LAMBDA] = _lambda_of({layer.name: layer for layer in model._flatten_layers()})
    config = keras.saving.serialize_keras_object(model)
    config.pop("compile_config", None)
    return keras.saving.deserialize_keras_object(
        _in_type(config, dtype, in_place_of), custom_objects=own, safe_mode=False
    )


def _layer_by_layer(model: Any, dtype: str, in_place_of: Collection[str]) -> Any:
    """Copies a functional model that shares a layer with a model within it: its configuration would name two."""
    return keras.models.clone_model(
        model, clone_function=lambda layer: _from_config(layer, dtype, in_place_of), recursive=True
    )


def _functions(layer: Any) -> list[Any]:
    """Functions of the user's own that a layer was given, such as an activation."""
    given = [each for each in vars(layer).values() if inspect.isfunction(each)]
    return [each for each in given if not each.__module__.startswith("keras.")]


def _lambda_of(layers: Mapping[str, Any]) -> type:
    """A Lambda that takes its function from the original: from code alone it would lose what that refers to."""

    class Lambda(keras.layers.Lambda):  # type: ignore[misc]
        @classmethod
        def from_config(cls, config: dict[str, Any], custom_objects: Any = None, safe_mode: Any = None) -> Any:
            original = layers[config["name"]]
            settings: dict[str, Any] = {key: config[key] for key in ("name", "trainable", "dtype") if key in config}
            settings["activity_regularizer"] = original.activity_regularizer
            return keras.layers.Lambda(
                original.function, original._output_shape, original.mask, original.arguments, **settings
            )

    return Lambda


def _from_constructor(specification: Specification, dtype: str) -> Any:
    """Copies a subclassed model whose constructor takes its own arguments but not what Keras adds to them."""
    model = specification.model
    accepted = inspect.signature(type(model).__init__).parameters
    try:
        arguments = {name: value for name, value in model.get_config().items() if name in accepted}
    except NotImplementedError:  # Keras's own, for a constructor with arguments that it cannot write down
        arguments = {}
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(dtype)
    try:
        copy = type(model)(**arguments)
        ports = [(port.shape, dtype if port.dtype == "float32" else port.dtype) for port in specification.inputs]
        copy(specification.nesting.of_inputs([keras.ops.zeros(shape, own) for shape, own in ports]))
    finally:
        keras.config.set_dtype_policy(before)
    return copy


def _in_type(config: Any, dtype: str, in_place_of: Collection[str]) -> Any:
    """Replaces a type by another wherever a configuration names the type that a layer computes in."""
    if isinstance(config, Mapping):
        if config.get("class_name") in _POLICIES:
            # A policy of quantized weights names the type of all else as its source.
            named = {each: dtype for each in ("name", "source_name") if config["config"].get(each) in in_place_of}
            return {**config, "config": {**config["config"], **named}}
        if config.get("class_name") == "Lambda" and config.get("module") == "keras.layers":
            config = {**config, "module": None, "class_name": _LAMBDA, "registered_name": _LAMBDA}
        return {
            key: dtype
            if key == "dtype" and isinstance(value, str) and value in in_place_of
            else _in_type(value, dtype, in_place_of)
            for key, value in config.items()
        }
    if isinstance(config, Sequence) and not isinstance(config, (str, bytes)):
        return type(config)(_in_type(each, dtype, in_place_of) for each in config)  # type: ignore[call-arg]
    return config
