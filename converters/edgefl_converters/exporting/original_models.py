"""The Keras model that a model file was made from, without adapters: from its manifest, or from a base model."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import keras

from edgefl.errors import ModelError, UnsupportedModelError, first_line
from edgefl.manifest import ModelManifest
from edgefl.model_file import ModelFile
from edgefl_converters.models.adapter_layers import Adapter, adaptable, adapters_of, alphas_of
from edgefl_converters.models.loading import load
from edgefl_converters.models.named_model import NamedModel
from edgefl_converters.models.sources.keras_2.registered import REGISTERED
from edgefl_converters.training_step.rebuilding import own_objects

__all__ = [
    "BASE",
    "Original",
    "copy_without_adapters",
    "manifest_adapters",
    "original_model",
    "require_complete",
    "weights_by_name",
]

BASE = "Give the Keras model that the file was made from: `base`."
_LORA = ("lora_rank", "lora_alpha")


@dataclass(frozen=True)
class Original:
    """Holds what a model file was made from.

    Attributes:
        model: without adapters.
        adapters: those among the file's parameters.
    """

    model: keras.Model
    adapters: list[Adapter]


def original_model(source: ModelFile, base: Any) -> Original:
    """The model without adapters; from the manifest without weights, else with those of the base model.

    Args:
        source: the model file.
        base: what `load` takes, or None. A model object without adapters is returned as it is.

    Raises:
        UnsupportedModelError: it cannot be rebuilt without the base model.
    """
    if base is None:
        return Original(_from_manifest(source), manifest_adapters(source.manifest))
    model = load(base)
    adapted = {name: layer for name, layer in adaptable(model).items() if layer.lora_enabled}
    if not adapted:
        return Original(model, manifest_adapters(source.manifest))
    alphas = {name.rpartition("/")[0]: float(layer.lora_alpha) for name, layer in adapted.items()}
    return Original(copy_without_adapters(model), manifest_adapters(source.manifest, alphas))


def copy_without_adapters(model: keras.Model) -> keras.Model:
    """A model of the same configuration without adapters, with the same weights but for what adapters add.

    Raises:
        UnsupportedModelError: Keras cannot rebuild it.
    """
    try:
        config = _without_lora(keras.saving.serialize_keras_object(model))
        compiled = config.pop("compile_config", None)
        copy = keras.saving.deserialize_keras_object(config, custom_objects=own_objects(model), safe_mode=False)
    except Exception as error:
        raise UnsupportedModelError(
            f"Keras cannot make a copy of the base model: {first_line(error)}",
            hint="Give the base model without adapters.",
        ) from error
    _compile(copy, compiled)
    values = NamedModel(model).variables
    for name, variable in NamedModel(copy).variables.items():
        if name in values:
            variable.assign(values[name])
    return copy


def manifest_adapters(manifest: ModelManifest, alphas: Mapping[str, float] | None = None) -> list[Adapter]:
    """The adapters among a file's parameters.

    Args:
        manifest: of the file.
        alphas: of the base model by layer, for those that the manifest says nothing of: an attention layer's
            configuration does not name its adapters.
    """
    alpha = manifest.fine_tuning.get("lora", {}).get("alpha")
    shapes = {parameter.name: parameter.shape for parameter in manifest.parameters}
    known = {} if alpha is not None else dict(alphas or {})
    return adapters_of(shapes, {**known, **dict(alphas_of(manifest.keras_config))}, alpha)


def weights_by_name(model: keras.Model) -> dict[str, Any]:
    """A model's weights (no random states) by stable name."""
    weights = {id(variable) for variable in model.weights}
    return {name: variable for name, variable in NamedModel(model).variables.items() if id(variable) in weights}


def require_complete(source: ModelFile, original: Original, given: Mapping[str, Any], *, from_base: bool) -> None:
    """Raises unless every weight of the model is known.

    Args:
        source: the model file.
        original: see `original_model`.
        given: values by name, of parameters and perhaps of frozen variables.
        from_base: the model has the weights of a base model already.

    Raises:
        ModelError: a parameter is not the model's.
        UnsupportedModelError: frozen variables are in the file only as constants of its graph.
    """
    manifest, weights, adapters = source.manifest, weights_by_name(original.model), original.adapters
    added = {name for each in adapters for name in (each.a, each.b)}
    expected = {parameter.name: parameter.shape for parameter in manifest.parameters if parameter.name not in added}
    shapes = {parameter.name: parameter.shape for parameter in manifest.parameters}
    expected.update({each.weight: (*shapes[each.a][:-1], shapes[each.b][-1]) for each in adapters})
    for name, shape in expected.items():
        actual = tuple(weights[name].shape) if name in weights else None
        if actual != shape:
            raise ModelError(
                f"The base model does not fit: the file has {name!r} of shape {shape}, "
                f"the base model {'none' if actual is None else f'one of shape {actual}'}.",
                hint=BASE,
            )
    frozen = [] if from_base or not manifest.frozen else [name for name in weights if name not in given]
    if frozen:
        raise UnsupportedModelError(
            f"{source.name} holds {len(frozen)} frozen variables "
            f"({', '.join(frozen[:3])}{', …' if len(frozen) > 3 else ''}) "
            "only as constants of its graph.",
            hint=BASE,
        )


def _from_manifest(source: ModelFile) -> keras.Model:
    manifest, name = source.manifest, source.name
    unknown = [each for each in manifest.custom_objects if not _known(each)]
    if unknown:
        raise UnsupportedModelError(
            f"{name} holds classes of your own ({', '.join(unknown)}), without their source.",
            hint=f"Name the module that defines them: `custom_objects`. Or: {BASE}",
        )
    config = _without_lora(dict(manifest.keras_config or {}))
    compiled = config.pop("compile_config", None)
    try:
        model = keras.saving.deserialize_keras_object(config, custom_objects=REGISTERED)
    except Exception as error:
        raise UnsupportedModelError(
            f"Keras {keras.__version__} cannot rebuild the model from {name} (made with Keras "
            f"{manifest.producer.get('keras', 'of an unknown version')}): {first_line(error)}",
            hint=BASE,
        ) from error
    _compile(model, compiled)
    return model


def _compile(model: keras.Model, config: Any) -> None:
    with contextlib.suppress(Exception):  # a loss or optimizer of one's own: the model is exported without
        model.compile_from_config(config)


def _known(qualified: str) -> bool:
    """True for a class that Keras was told of, under its own name or a registered one."""
    name = qualified.rsplit(".", 1)[-1]
    known = {**keras.saving.get_custom_objects(), **_scope()}
    return any(each.rsplit(">", 1)[-1] == name for each in known)


def _scope() -> Mapping[str, Any]:
    from keras.src.backend.common import global_state

    return global_state.get_global_attribute("custom_objects_scope_dict", {}) or {}


def _without_lora(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _without_lora(each) for key, each in value.items() if key not in _LORA}
    return [_without_lora(each) for each in value] if isinstance(value, list) else value
