"""``.keras`` files of Keras 2.12 to 2.15 and of tf_keras: their weights are addressed by attributes and classes.

See ``saving/saving_lib.py`` in github.com/keras-team/tf-keras: ``layers/lstm_1/cell/vars/0`` is the first weight of the
attribute ``cell`` of the second LSTM among ``layers``.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import h5py
import keras

from edgefl_converters.models.naming import snake_case
from edgefl_converters.models.sources.keras_2.compiling import compile_as_configured, decode
from edgefl_converters.models.sources.keras_2.cudnn_weights import plain_weights
from edgefl_converters.models.sources.keras_2.rebuilding import Rebuilt, rebuild
from edgefl_converters.models.sources.keras_2.spelling import before_keras_3
from edgefl_converters.models.sources.keras_2.weights import assign, finish, unfit

__all__ = ["is_of_keras_2", "read_archive"]


def is_of_keras_2(path: Path) -> bool:
    """Tells whether Keras 2 wrote a ``.keras`` file."""
    with zipfile.ZipFile(path) as archive:
        if "metadata.json" not in archive.namelist():
            return False
        return before_keras_3(str(json.loads(archive.read("metadata.json")).get("keras_version", "3.")))


def read_archive(path: Path) -> keras.Model:
    """Reads a model with its weights, compiled if it was when it was saved; its optimizer's state is left.

    Raises:
        ModelError: its weights do not fit, or are not there.
        Exception: of any kind, Keras's own: it cannot build the model.
    """
    with zipfile.ZipFile(path) as archive:
        version = str(json.loads(archive.read("metadata.json"))["keras_version"])
        described = decode(archive.read("config.json"))
        weights = archive.read("model.weights.h5")
    rebuilt = rebuild(described)
    with h5py.File(io.BytesIO(weights), "r") as file:
        _give_model(rebuilt, rebuilt.model, file, str(path))
    finish(rebuilt)
    compiled = described.get("compile_config")
    if compiled is not None:
        compile_as_configured(rebuilt.model, compiled, version)
    return rebuilt.model


def _give_model(rebuilt: Rebuilt, model: Any, group: Any, place: str) -> None:
    _give_each(rebuilt, [layer for _, layer in rebuilt.layers_of(model)], group.get("layers", {}), place)


def _give_layer(rebuilt: Rebuilt, layer: Any, group: Any, place: str) -> None:
    if rebuilt.is_model(layer):
        _give_model(rebuilt, layer, group, place)
        return
    wanted = [*layer._trainable_variables, *layer._non_trainable_variables]
    saved = group.get("vars", {})
    values = [saved[str(index)][()] for index in range(len(saved))]
    if isinstance(layer, keras.layers.Normalization):
        values = values[: len(wanted)]  # behind them a count, which only adapt needs
    plain = plain_weights(values) if isinstance(layer, (keras.layers.LSTM, keras.layers.GRU)) else None
    if plain is not None:  # the layer of cuDNN had no cell
        wanted, values = layer.cell._trainable_variables or layer.cell._non_trainable_variables, plain
    if [each.shape for each in values] != [tuple(each.shape) for each in wanted]:
        raise unfit(layer, place, [("", each.shape) for each in values], wanted)
    for variable, value in zip(wanted, values, strict=True):
        assign(variable, value)
    for name in group:
        inner = getattr(layer, name, None)
        if isinstance(inner, keras.layers.Layer):
            _give_layer(rebuilt, inner, group[name], place)
        elif isinstance(inner, (list, tuple)):
            _give_each(rebuilt, [each for each in inner if isinstance(each, keras.layers.Layer)], group[name], place)
        elif name != "vars" and _holds_values(group[name]):
            raise unfit(layer, place, [(name, ())], wanted)


def _give_each(rebuilt: Rebuilt, layers: Iterable[Any], group: Any, place: str) -> None:
    """Gives the layers in a list their weights: they are counted class by class, each once."""
    counts: dict[str, int] = {}
    for layer in {id(each): each for each in layers}.values():
        kind = snake_case(rebuilt.renamed.get(id(layer), type(layer).__name__))
        count = counts[kind] = counts.get(kind, -1) + 1
        name = f"{kind}_{count}" if count else kind
        if name in group:
            _give_layer(rebuilt, layer, group[name], place)
        elif layer.weights:
            raise unfit(layer, place, [], layer.weights)


def _holds_values(group: Any) -> bool:
    return isinstance(group, h5py.Dataset) or any(map(_holds_values, group.values()))
