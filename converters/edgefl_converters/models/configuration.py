"""A Keras model's configuration, with names that do not depend on what else the process has built."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import keras

from edgefl_converters.models.naming import PathNames, snake_case

__all__ = ["Configuration", "configuration"]

_REFERENCES = ("input_layers", "output_layers", "keras_history")
_BY_OUTPUT = ("loss", "loss_weights", "metrics", "weighted_metrics")


@dataclass(frozen=True)
class Configuration:
    """Holds what a manifest says of how Keras made and compiled a model.

    Attributes:
        model: as Keras serialises it; None for classes that do not say how: exporting needs their source anyway.
        loss: as compiled.
        optimizer: the one that is in the file.
    """

    model: Any
    loss: Any
    optimizer: Any


def configuration(model: keras.Model, optimizer: Any, names: PathNames) -> Configuration:
    """Describes a model, with the layers, the model and the optimizer renamed that Keras named itself.

    Args:
        model: compiled.
        optimizer: a fresh copy of the compiled one.
        names: of the model's layers.
    """
    renamed = {layer.name: names(layer.name) for layer in model._flatten_layers(include_self=False)}
    for each in (model, optimizer, model.optimizer):
        automatic = snake_case(type(each).__name__)
        if re.fullmatch(rf"{automatic}(_\d+)?", each.name):
            renamed[each.name] = automatic
    try:
        config = keras.saving.serialize_keras_object(model)
    except NotImplementedError:
        config = None
    return Configuration(
        _rename(config, renamed, ""),
        _rename((model.get_compile_config() or {}).get("loss"), renamed, "loss"),
        _rename(keras.optimizers.serialize(optimizer), renamed, ""),
    )


def _rename(value: Any, names: Mapping[str, str], key: str) -> Any:
    """Renames layers where a configuration names them: a string elsewhere may be the name of something else."""
    if isinstance(value, Mapping):
        keys = names if key in _BY_OUTPUT else {}
        return {keys.get(own, own): _rename(each, names, own) for own, each in value.items()}
    if isinstance(value, (list, tuple)):
        within = key if key in _REFERENCES else ""
        return type(value)(_rename(each, names, within) for each in value)
    if isinstance(value, str) and key in ("name", *_REFERENCES):
        return names.get(value, value)
    return value
