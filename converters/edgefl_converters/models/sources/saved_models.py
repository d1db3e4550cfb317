"""SavedModel folders that Keras 2 wrote of a Keras model: its configuration, and its variables by object.

The graph in the folder is not run. ``keras_metadata.pb``, before TensorFlow 2.5 the graph's objects, holds what Keras
knew of each object (for the root the same configuration as in an HDF5 file), and the checkpoint holds the graph of
objects with the variables' keys: see ``saving/legacy/saved_model`` in github.com/keras-team/tf-keras.
"""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf
from google.protobuf.message import DecodeError
from keras.src.models.functional import Functional
from tensorflow.core.protobuf.saved_model_pb2 import SavedModel
from tensorflow.core.protobuf.trackable_object_graph_pb2 import TrackableObjectGraph
from tensorflow.python.keras.protobuf.saved_metadata_pb2 import SavedMetadata

from edgefl.errors import ModelError
from edgefl_converters.models.sources.keras_2.compiling import compile_as_configured, decode
from edgefl_converters.models.sources.keras_2.rebuilding import Rebuilt, rebuild
from edgefl_converters.models.sources.keras_2.weights import finish, give

__all__ = ["read_saved_model"]

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
    objects = _described(folder)
    if not objects:
        raise ModelError(
            f"{folder} is a SavedModel without a Keras model: model.export() of Keras 3, and TensorFlow without Keras, "
            "write the computation only.",
            hint=_RESAVE,
        )
    root: dict[str, Any] = objects.get(0, {})
    if not root.get("is_graph_network") or "model_config" not in root:
        raise ModelError(
            f"{folder} holds a subclassed model ({root.get('class_name', 'unknown')}), whose source is not in it.",
            hint="Give module:function that builds the model, loads its weights and returns it.",
        )
    version = str(root.get("keras_version", "2."))
    rebuilt = rebuild(decode(json.dumps(root["model_config"])))
    model = rebuilt.model
    if not isinstance(model, (keras.Sequential, Functional)):
        raise ModelError(f"{folder} holds {type(model).__name__}, expected a Keras model.", hint=_RESAVE)
    _restore(rebuilt, folder, {node: str(each.get("name")) for node, each in objects.items()})
    if root.get("training_config") is not None:
        compile_as_configured(model, decode(json.dumps(root["training_config"])), version)
    return model


def _described(folder: Path) -> dict[int, Any]:
    """Reads what Keras wrote of each object, by its number; in the graph itself before TensorFlow 2.5."""
    metadata, graph = folder / "keras_metadata.pb", folder / "saved_model.pb"
    source = metadata if metadata.exists() else graph
    try:
        if source == metadata:
            nodes = [(node.node_id, node.metadata) for node in _parsed(SavedMetadata(), metadata).nodes]
        else:
            objects = _parsed(SavedModel(), graph).meta_graphs[0].object_graph_def.nodes
            nodes = [
                (index, node.user_object.metadata)
                for index, node in enumerate(objects)
                if node.user_object.identifier.startswith("_tf_keras") and node.user_object.metadata
            ]
        return {index: json.loads(text) for index, text in nodes}
    except (DecodeError, IndexError, ValueError) as error:
        raise ModelError(f"{source} is damaged: {error}.", hint=_DAMAGED) from error


def _parsed(message: Any, path: Path) -> Any:
    message.ParseFromString(path.read_bytes())
    return message


def _restore(rebuilt: Rebuilt, folder: Path, names: dict[int, str]) -> None:
    """Gives every layer its variables; what is not certain is refused."""
    try:
        checkpoint = tf.train.load_checkpoint(str(folder / "variables" / "variables"))
        graph = TrackableObjectGraph.FromString(checkpoint.get_tensor("_CHECKPOINTABLE_OBJECT_GRAPH"))
    except Exception as error:  # TensorFlow raises errors of its own for what is missing and what is damaged
        raise ModelError(f"The variables of {folder} cannot be read.", hint=_DAMAGED) from error

    def restore(model: Any, node: int) -> None:
        layers = {
            names[child.node_id]: child.node_id
            for child in graph.nodes[node].children
            if child.local_name.startswith("layer") and child.node_id in names
        }
        for name, layer in rebuilt.layers_of(model):
            if rebuilt.is_model(layer) and name in layers:
                restore(layer, layers[name])
                continue
            found = _variables(graph, layers[name]) if name in layers else []
            give(rebuilt, layer, [(said, partial(checkpoint.get_tensor, key)) for said, key in found], str(folder))

    restore(rebuilt.model, 0)
    finish(rebuilt)


def _variables(graph: TrackableObjectGraph, layer: int) -> list[tuple[str, str]]:
    """Names and keys of the variables of a layer and of those in it, each once; in their order if the file has it."""
    nodes = graph.nodes
    listed = [child.node_id for child in nodes[layer].children if child.local_name == "variables"]
    if listed:
        numbered = sorted((int(child.local_name), child.node_id) for child in nodes[listed[0]].children)
        return [
            (one.full_name, one.checkpoint_key)
            for _, node in numbered
            for one in nodes[node].attributes
            if one.name == "VARIABLE_VALUE"
        ]
    return _variables_below(graph, layer)


def _variables_below(graph: TrackableObjectGraph, layer: int) -> list[tuple[str, str]]:
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
