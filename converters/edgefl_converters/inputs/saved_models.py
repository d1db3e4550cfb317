"""SavedModel folders that Keras 2 wrote of a Keras model: its configuration, and its variables by object.

The graph in the folder is not run. ``keras_metadata.pb`` holds what Keras knew of each object (for the root the same
configuration as in an HDF5 file), and the checkpoint holds the graph of objects with the variables' keys: see
``saving/legacy/saved_model`` in github.com/keras-team/tf-keras.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from google.protobuf.message import DecodeError
from keras.src.models.functional import Functional
from tensorflow.core.protobuf.trackable_object_graph_pb2 import TrackableObjectGraph
from tensorflow.python.keras.protobuf.saved_metadata_pb2 import SavedMetadata

from edgefl.errors import ModelError
from edgefl_converters.inputs import legacy

__all__ = ["read_saved_model"]

_DEPTHWISE = (keras.layers.DepthwiseConv1D, keras.layers.DepthwiseConv2D)
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
    """Gives every layer its variables: in Keras's order, which both versions share, and checked by name and shape."""
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
        if not wanted:
            continue
        found = list(_variables(graph, layers[layer.name])) if layer.name in layers else []
        if [variable.name for variable in wanted] != [_in_keras_3(name, layer) for name, _ in found]:
            raise ModelError(
                f"The variables of layer {layer.name!r} in {folder} are not those that Keras {keras.__version__} has: "
                f"{', '.join(name for name, _ in found) or 'none'}; expected "
                f"{', '.join(variable.path for variable in wanted)}.",
                hint=_RESAVE,
            )
        for variable, (name, key) in zip(wanted, found, strict=True):
            value = np.asarray(checkpoint.get_tensor(key))
            if value.shape != tuple(variable.shape):
                raise ModelError(
                    f"The variable {name!r} in {folder} has shape {value.shape}, expected {tuple(variable.shape)}.",
                    hint=_RESAVE,
                )
            variable.assign(value)


def _variables(graph: Any, node: int) -> Iterator[tuple[str, str]]:
    """Names and keys of a layer's variables: first those that are trained."""
    lists = {child.local_name: child.node_id for child in graph.nodes[node].children}
    seen: set[int] = set()
    for each in ("trainable_variables", "variables"):
        for child in graph.nodes[lists[each]].children if each in lists else ():
            if child.node_id not in seen:
                seen.add(child.node_id)
                attributes = graph.nodes[child.node_id].attributes
                yield from ((one.full_name, one.checkpoint_key) for one in attributes if one.name == "VARIABLE_VALUE")


def _in_keras_3(name: str, layer: Any) -> str:
    last = name.rsplit("/", 1)[-1]
    return "kernel" if last == "depthwise_kernel" and isinstance(layer, _DEPTHWISE) else last
