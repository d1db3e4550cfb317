"""SavedModel folders that Keras 2 wrote of a Keras model: its configuration, and its variables by object.

The graph in the folder is not run. ``keras_metadata.pb`` holds what Keras knew of each object (for the root the same
configuration as in an HDF5 file), and the checkpoint holds the graph of objects with the variables' keys: see
``saving/legacy/saved_model`` in github.com/keras-team/tf-keras.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from google.protobuf.message import DecodeError
from keras.src.models.functional import Functional
from tensorflow.core.protobuf.trackable_object_graph_pb2 import TrackableObjectGraph
from tensorflow.python.keras.protobuf.saved_metadata_pb2 import SavedMetadata

from edgefl.errors import ModelError, listed
from edgefl_converters.models.sources import legacy

__all__ = ["read_saved_model"]

_DEPTHWISE = (keras.layers.DepthwiseConv1D, keras.layers.DepthwiseConv2D)
_NOT_WEIGHTS = ("keras_api", "optimizer", "signatures")
_DAMAGED = "Copy the folder again, with all that is in it."
_RESAVE = (
    "Where the code that made it runs, save the model itself: model.save('model.keras'), or model.save('model.h5') "
    "with Keras 2."
)


def read_saved_model(folder: Path) -> keras.Model:
    """Rebuilds a Sequential or functional model with its weights, compiled if it was when it was saved.

    Args:
        folder: with ``saved_model.pb``.

    Raises:
        ModelError: it holds no Keras model, a subclassed one, or variables that do not fit.
        Exception: of any kind, Keras's own: it cannot build the model.
    """
    metadata = folder / "keras_metadata.pb"
    if not metadata.exists():
        raise ModelError(
            f"{folder} is a SavedModel without a Keras model: model.export() of Keras 3, and TensorFlow without Keras, "
            "write the computation only.",
            hint=_RESAVE,
        )
    saved = SavedMetadata()
    try:
        saved.ParseFromString(metadata.read_bytes())
    except DecodeError as error:
        raise ModelError(f"{metadata} is damaged: {error}.", hint=_DAMAGED) from error
    objects = {node.node_id: json.loads(node.metadata) for node in saved.nodes}
    root: dict[str, Any] = objects.get(0, {})
    if not root.get("is_graph_network") or "model_config" not in root:
        raise ModelError(
            f"{folder} holds a subclassed model ({root.get('class_name', 'unknown')}), whose source is not in it.",
            hint="Give module:function that builds the model, loads its weights and returns it.",
        )
    version = str(root.get("keras_version", "2."))
    model = legacy.model_from(legacy.decode(json.dumps(root["model_config"])), version)
    if not isinstance(model, (keras.Sequential, Functional)):
        raise ModelError(f"{folder} holds {type(model).__name__}, expected a Keras model.", hint=_RESAVE)
    _restore(model, folder, {node: str(each.get("name")) for node, each in objects.items()})
    if root.get("training_config") is not None:
        legacy.compile_as_configured(model, legacy.decode(json.dumps(root["training_config"])), version)
    return model


def _restore(model: keras.Model, folder: Path, names: dict[int, str]) -> None:
    """Gives every layer its variables, by name and shape; what is not certain is refused."""
    try:
        checkpoint = tf.train.load_checkpoint(str(folder / "variables" / "variables"))
        graph = TrackableObjectGraph.FromString(checkpoint.get_tensor("_CHECKPOINTABLE_OBJECT_GRAPH"))
    except Exception as error:  # TensorFlow raises errors of its own for what is missing and what is damaged
        raise ModelError(f"The variables of {folder} cannot be read.", hint=_DAMAGED) from error
    layers = {
        names[child.node_id]: child.node_id
        for child in graph.nodes[0].children
        if child.local_name.startswith("layer") and child.node_id in names
    }
    for layer in model.layers:
        wanted = [*layer.trainable_weights, *layer.non_trainable_weights]
        found = _variables(graph, layers[layer.name]) if layer.name in layers else []
        chosen = [_choose(variable.path, found, layer) for variable in wanted]
        if len(found) != len(wanted) or None in chosen or len(set(chosen)) < len(chosen):
            raise ModelError(
                f"The variables of layer {layer.name!r} in {folder} are not those that Keras {keras.__version__} has: "
                f"{listed(name for name, _ in found)}; expected "
                f"{listed(variable.path for variable in wanted)}.",
                hint=_RESAVE,
            )
        for variable, place in zip(wanted, chosen, strict=True):
            name, key = found[place or 0]
            value = np.asarray(checkpoint.get_tensor(key))
            if value.shape != tuple(variable.shape):
                raise ModelError(
                    f"The variable {name!r} in {folder} has shape {value.shape}, expected {tuple(variable.shape)}.",
                    hint=_RESAVE,
                )
            variable.assign(value)


def _variables(graph: TrackableObjectGraph, layer: int) -> list[tuple[str, str]]:
    """Names and keys of the variables of a layer and of the layers in it, each once."""
    found: dict[str, str] = {}
    waiting, seen = [layer], {layer}
    while waiting:
        node = graph.nodes[waiting.pop()]
        for one in node.attributes:
            if one.name == "VARIABLE_VALUE" and one.checkpoint_key not in found:
                found[one.checkpoint_key] = one.full_name
        for child in node.children:
            if child.node_id not in seen and child.local_name not in _NOT_WEIGHTS:
                seen.add(child.node_id)
                waiting.append(child.node_id)
    return [(name, key) for key, name in found.items()]


def _choose(path: str, found: list[tuple[str, str]], layer: Any) -> int | None:
    """Tells which of the saved variables one of the rebuilt model is, by names; None where that is not certain."""
    renamed = isinstance(layer, _DEPTHWISE)
    names = [name.replace("/depthwise_kernel", "/kernel") if renamed else name for name, _ in found]
    # First by the names as they are; Keras numbers the names that it gives, in each process anew.
    plainer: tuple[Callable[[str], str], ...] = (lambda name: name, lambda name: re.sub(r"_\d+(?=/)", "", name))
    for plain in plainer:
        parts = plain(path).split("/")
        for length in range(len(parts), 0, -1):
            end = parts[-length:]
            places = [place for place, name in enumerate(names) if plain(name).split("/")[-length:] == end]
            if len(places) == 1:
                return places[0]
    return None
