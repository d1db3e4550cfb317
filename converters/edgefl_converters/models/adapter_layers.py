"""Layers with LoRA adapters (Hu et al. 2021) as Keras makes them: what they hold, and how they come back from a file.

Keras itself writes W + alpha/rank A B in place of W and sets A and B to zero when it loads a file, where no gradient
moves them any more; Dense and Embedding forget their alpha, attention layers that they had adapters. So a file with
kept adapters has an entry of ours beside Keras's own.
"""

from __future__ import annotations

import io
import json
import math
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from edgefl.errors import ModelError
from edgefl_converters.models.named_model import NamedModel

__all__ = [
    "ENTRY",
    "Adapter",
    "adapt_like",
    "adaptable",
    "adapted_weights",
    "adapter_variables",
    "adapters_of",
    "alphas_of",
    "enable",
    "entry",
    "matrix_of",
    "merge",
    "restore",
    "restore_alphas",
    "train_only",
]

ENTRY = "edgefl/adapters.npz"
"""Entry of a ``.keras`` file: for each layer its own weight and its adapters, and what is trained."""
_MATRICES = ("kernel", "embeddings")


@dataclass(frozen=True)
class Adapter:
    """The adapters of one layer, by the stable names of its variables.

    Attributes:
        weight: name of the variable that they adapt, W.
        a: name of A.
        b: name of B.
        rank: columns of A.
        alpha: A B counts alpha / rank times.
    """

    weight: str
    a: str
    b: str
    rank: int
    alpha: float


def adapters_of(
    parameters: Mapping[str, tuple[int, ...]], alphas: Mapping[str, float], alpha: float | None
) -> list[Adapter]:
    """Finds adapters among parameters by Keras's names for them.

    Args:
        parameters: shape by name.
        alphas: alpha by the name of the layer, where a configuration says it.
        alpha: of all others; None for the rank, which is Keras's default.
    """
    found = []
    for name, shape in parameters.items():
        layer, _, last = name.rpartition("/")
        for matrix in _MATRICES:
            if last == f"lora_{matrix}_b":
                prefix = f"{layer}/" if layer else ""
                rank = shape[0]
                chosen = alphas.get(layer, rank if alpha is None else alpha)
                found.append(Adapter(f"{prefix}{matrix}", f"{prefix}lora_{matrix}_a", name, rank, float(chosen)))
    return found


def alphas_of(value: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, float]]:
    """Alpha by the name of the layer, from a model's configuration; the model's own name is no part of names."""
    if isinstance(value, Mapping):
        config = value.get("config")
        if "class_name" in value and isinstance(config, Mapping) and "name" in config:
            path = (*path, config["name"])
            if config.get("lora_rank"):
                yield "/".join(path[1:]), float(config.get("lora_alpha") or config["lora_rank"])
        for each in value.values():
            yield from alphas_of(each, path)
    elif isinstance(value, list):
        for each in value:
            yield from alphas_of(each, path)


def adapt_like(copy: keras.Model, original: NamedModel) -> None:
    """Gives a copy from a model's configuration the adapters and the frozen weights that this does not tell of."""
    adapters = []
    for layer, weight in _layers(original.model):
        if layer.lora_enabled:
            a, b = _pair(layer)
            alpha = float(layer.lora_alpha)
            weight_name, a_name, b_name = map(original.name_of, (weight, a, b))
            adapters.append(Adapter(weight_name, a_name, b_name, layer.lora_rank, alpha))
    if not adapters:
        return
    enable(copy, adapters)
    trained = {name: variable.trainable for name, variable in original.variables.items()}
    for name, variable in NamedModel(copy).variables.items():
        if trained.get(name) is False and variable.trainable:
            variable.trainable = False


def adapter_variables(model: keras.Model) -> set[int]:
    """Identities of the variables of all adapters."""
    return {id(each) for layer, _ in _layers(model) if layer.lora_enabled for each in _pair(layer)}


def adapted_weights(model: keras.Model) -> set[int]:
    """Identities of the weights that have adapters."""
    return {id(weight) for layer, weight in _layers(model) if layer.lora_enabled}


def restore_alphas(model: keras.Model, config: Any) -> None:
    """Sets the alpha that a configuration says: Dense and Embedding forget it when they are built from one."""
    alphas = {name.rpartition("/")[2]: alpha for name, alpha in alphas_of(config)}
    for layer, _ in _layers(model):
        if layer.lora_enabled and layer.name in alphas:
            layer.lora_alpha = _plain(alphas[layer.name])


def merge(weight: NDArray[Any], a: NDArray[Any], b: NDArray[Any], scale: float) -> NDArray[np.float32]:
    """W + scale A B, rounded once.

    Args:
        weight: shape ``[..., rows, columns]``; kernels of convolutions have their window first.
        a: shape ``[..., rows, rank]``.
        b: shape ``[rank, columns]``.
        scale: alpha / rank.
    """
    return np.asarray(weight + scale * (a.astype(np.float64) @ b.astype(np.float64)), np.float32)


def adaptable(model: keras.Model) -> dict[str, Any]:
    """Layers that can have adapters, by the stable name of the weight that is adapted."""
    named = NamedModel(model)
    return {named.name_of(weight): layer for layer, weight in _layers(model)}


def enable(model: keras.Model, adapters: list[Adapter]) -> None:
    """Gives layers adapters in place, with new values, and the alpha that Keras may have forgotten.

    Args:
        model: a built model.
        adapters: those that it is to have; layers that have adapters keep their values.

    Raises:
        ModelError: the model has no such layer, or one that Keras cannot adapt.
    """
    layers = adaptable(model)
    for each in adapters:
        layer = layers.get(each.weight)
        if layer is None:
            raise ModelError(f"The model has no layer with a weight {each.weight!r} that can have LoRA adapters.")
        if not layer.lora_enabled:
            try:
                layer.enable_lora(each.rank)
            except ValueError as error:
                raise ModelError(f"Keras cannot give {each.weight!r} LoRA adapters: {error}") from error
        layer.lora_alpha = _plain(each.alpha)


def matrix_of(layer: Any) -> tuple[int, int]:
    """Rows and columns of the matrix that a layer's adapters adapt: the smaller number is the highest rank it can have.

    Args:
        layer: a built one that takes adapters.
    """
    *rows, columns = _weight(layer).shape
    return math.prod(rows), int(columns)


def entry(model: keras.Model, adapters: list[Adapter], trained: list[str]) -> bytes:
    """Returns what a file with kept adapters holds beside Keras's own entries.

    Args:
        model: with the adapters.
        adapters: of the model.
        trained: names of the variables that are trained; all others are not.
    """
    variables = NamedModel(model).variables
    described = {"adapters": [vars(each) for each in adapters], "trained": trained}
    names = [name for each in adapters for name in (each.weight, each.a, each.b)]
    # Numbered, because numpy's names of arrays become names of files in the archive.
    arrays: dict[str, Any] = {str(index): np.asarray(variables[name]) for index, name in enumerate(names)}
    stream = io.BytesIO()
    np.savez(stream, description=np.frombuffer(json.dumps(described).encode(), np.uint8), **arrays)
    return stream.getvalue()


def restore(model: keras.Model, path: Path) -> keras.Model:
    """Gives a model that Keras has just loaded the adapters that its file keeps, if it keeps any.

    Args:
        model: as Keras loaded it; changed in place.
        path: the ``.keras`` file.

    Returns:
        The same model; adapters that no entry describes and that Keras left at zero are drawn anew, as at the start
        of LoRA: A as Keras draws it, B zero, so that the model computes the same and can be trained.
    """
    with zipfile.ZipFile(path) as archive:
        kept = archive.read(ENTRY) if ENTRY in archive.namelist() else None
    if kept is None:
        _revive(model)
        return model
    with np.load(io.BytesIO(kept)) as arrays:
        described = json.loads(bytes(arrays["description"]))
        adapters = [Adapter(**each) for each in described["adapters"]]
        enable(model, adapters)
        variables = NamedModel(model).variables
        names = [name for each in adapters for name in (each.weight, each.a, each.b)]
        for index, name in enumerate(names):
            variables[name].assign(arrays[str(index)])
    train_only(model, described["trained"])
    return model


def train_only(model: keras.Model, trained: list[str]) -> None:
    """Freezes all weights but some, whole layers as such, and compiles the model again so that it knows."""
    chosen = set(trained)
    names = {id(variable): name for name, variable in NamedModel(model).variables.items()}
    weights = [variable for variable in model.weights if id(variable) in names]
    for layer in model._flatten_layers(include_self=False):
        own = [*layer._trainable_variables, *layer._non_trainable_variables]
        if own and not any(names.get(id(variable)) in chosen for variable in own):
            layer.trainable = False
    for variable in weights:
        if variable.trainable and names[id(variable)] not in chosen:
            variable.trainable = False
    compiled = model.get_compile_config() if model.compiled else None
    if compiled:
        model.compile_from_config(compiled)


def _plain(alpha: float) -> float:
    return int(alpha) if float(alpha).is_integer() else alpha


def _revive(model: keras.Model) -> None:
    for layer, _ in _layers(model):
        if not layer.lora_enabled:
            continue
        a, b = _pair(layer)
        if not np.any(np.asarray(a)) and not np.any(np.asarray(b)):
            a.assign(keras.initializers.HeUniform(seed=0)(tuple(a.shape), dtype="float32"))


def _pair(layer: Any) -> tuple[Any, Any]:
    matrix = "embeddings" if hasattr(layer, "lora_embeddings_a") else "kernel"
    return getattr(layer, f"lora_{matrix}_a"), getattr(layer, f"lora_{matrix}_b")


def _weight(layer: Any) -> Any:
    weight = getattr(layer, "_embeddings", None)
    return getattr(layer, "_kernel", None) if weight is None else weight


def _layers(model: keras.Model) -> Iterator[tuple[Any, Any]]:
    """Layers that can have adapters, each once, with the weight that is adapted."""
    seen: set[int] = set()
    for layer in model._flatten_layers(include_self=False):
        weight = _weight(layer)
        if hasattr(layer, "enable_lora") and weight is not None and id(layer) not in seen:
            seen.add(id(layer))
            yield layer, weight
