"""A Keras model's configuration, with names that do not depend on what else the process has built."""

from __future__ import annotations

import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import keras

from edgefl.hashing import new_sha256
from edgefl_converters.models.naming import PathNames, snake_case

__all__ = ["Configuration", "configuration", "fingerprint"]

_REFERENCES = ("input_layers", "output_layers", "keras_history")
_BY_OUTPUT = ("loss", "loss_weights", "metrics", "weighted_metrics")


@dataclass(frozen=True)
class Configuration:
    """Holds what a manifest says of how Keras made and compiled a model.

    Attributes:
        model: as Keras serialises it; None for classes that cannot say how: exporting needs their source anyway.
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
    except Exception:  # NotImplementedError is Keras's; a class of the user's own may raise anything
        config = None
    return Configuration(
        _rename(config, renamed, ""),
        _rename((model.get_compile_config() or {}).get("loss"), renamed, "loss"),
        _rename(keras.optimizers.serialize(optimizer), renamed, ""),
    )


def fingerprint(model: keras.Model) -> str:
    """Hashes all that a compiled model is: layers, how it is compiled, weights. Names that Keras gave do not count.

    Args:
        model: built and compiled. Of one that cannot say how it was made, no two fingerprints are the same.
    """
    found = configuration(model, model.optimizer, PathNames(model))
    digest = new_sha256()
    digest.update((secrets.token_hex() if found.model is None else str(found)).encode())
    for array in model.get_weights():
        digest.update(array.tobytes())
    return str(digest.hexdigest())


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
