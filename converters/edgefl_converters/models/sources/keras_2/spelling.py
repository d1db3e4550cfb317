"""Says what Keras 2 called its layers and their arguments, in the words of Keras 3.

Names of arguments and their defaults are those of ``get_config`` in github.com/keras-team/tf-keras and of Keras 2.2.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import keras

from edgefl.errors import ModelError
from edgefl_converters.models.sources.keras_2.activations import hard_sigmoid
from edgefl_converters.models.sources.keras_errors import UnknownNameError

__all__ = ["OF_CUDNN", "arguments_of", "before_keras_3", "class_of", "plain_name"]

_ANY = object()
_SEPARABLE = {"groups": 1, "kernel_initializer": _ANY, "kernel_regularizer": _ANY, "kernel_constraint": _ANY}
_SEQUENCE = {"time_major": False, "implementation": _ANY, "input_dim": _ANY, "input_length": _ANY}
_CAUSAL = {"causal": False}
_GONE: dict[str, dict[str, Any]] = {
    "DepthwiseConv1D": _SEPARABLE,
    "DepthwiseConv2D": _SEPARABLE,
    "SeparableConv1D": _SEPARABLE,
    "SeparableConv2D": _SEPARABLE,
    "Conv1DTranspose": {"groups": 1},
    "Conv2DTranspose": {"groups": 1},
    "Conv3DTranspose": {"groups": 1},
    "LSTM": _SEQUENCE,
    "GRU": _SEQUENCE,
    "SimpleRNN": _SEQUENCE,
    "RNN": _SEQUENCE,
    "Bidirectional": _SEQUENCE,
    "ConvLSTM1D": _SEQUENCE,
    "ConvLSTM2D": _SEQUENCE,
    "ConvLSTM3D": _SEQUENCE,
    "LSTMCell": {"implementation": _ANY},
    "GRUCell": {"implementation": _ANY},
    "MultiHeadAttention": {
        "query_shape": _ANY,
        "key_shape": _ANY,
        "value_shape": _ANY,
        "softmax_robust_masking": False,
    },
    "Attention": _CAUSAL,
    "AdditiveAttention": _CAUSAL,
    "SpatialDropout1D": {"noise_shape": None},
    "SpatialDropout2D": {"noise_shape": None},
    "SpatialDropout3D": {"noise_shape": None},
    "Embedding": {"input_length": _ANY},
    "Dense": {"input_dim": _ANY},
    "BatchNormalization": {"fused": _ANY, "virtual_batch_size": None, "adjustment": None, "mode": 0},
    "IntegerLookup": {"vocabulary_size": _ANY},
}
"""Arguments that Keras 2 wrote and Keras 3 refuses, with the value at which they meant nothing."""
_NEVER_MEANT = ("batch_input_shape", "batch_size", "rng_type")
_NOT_YET: dict[str, dict[str, Any]] = {"GRU": {"reset_after": False}, "GRUCell": {"reset_after": False}}
"""Values that an argument had in a file that does not have it: the Keras that wrote it had none."""
_RENAMED = {("LeakyReLU", "alpha"): "negative_slope", ("ThresholdedReLU", "theta"): "threshold"}
OF_CUDNN = {"CuDNNLSTM": "LSTM", "CuDNNGRU": "GRU"}
"""Layers that only ran on a GPU, and those that compute the same; their weights lie otherwise in a file."""
_CLASSES = {
    "BatchNormalizationV1": "BatchNormalization",
    "BatchNormalizationV2": "BatchNormalization",
    "SyncBatchNormalization": "BatchNormalization",
    "LSTMV1": "LSTM",
    "LSTMV2": "LSTM",
    "GRUV1": "GRU",
    "GRUV2": "GRU",
    "ThresholdedReLU": "ReLU",
    **OF_CUDNN,
}
_NO_COUNTERPART = {
    "LocallyConnected1D": "Build the model with Conv1D in its place, and train that.",
    "LocallyConnected2D": "Build the model with Conv2D in its place, and train that.",
    "RandomHeight": "Build the model without it, or with RandomZoom, which keeps the size that devices need.",
    "RandomWidth": "Build the model without it, or with RandomZoom, which keeps the size that devices need.",
    "AddLoss": "Give module:function that builds the model with a layer that calls self.add_loss in its place, calls "
    "load_weights with this file, and returns it.",
    "TensorFlowOpLayer": "TensorFlow before 2.4 wrote operations between layers so, such as x / 255. Give "
    "module:function that builds the model with keras.ops or layers in their place, calls load_weights with this file, "
    "and returns it.",
}
"""Layers that Keras 3 does not have, with the way out."""


def before_keras_3(version: str) -> bool:
    """Tells whether a version, such as ``"2.15.0"``, is one of Keras 1 or 2; those of tf_keras go on from there."""
    return version.startswith(("0.", "1.", "2."))


def plain_name(name: str) -> str:
    """The name of a layer as Keras 3 accepts it."""
    return name.replace("/", "_")


def class_of(kind: str) -> type:
    """The class that a configuration names: one that was made known, else Keras's own.

    Raises:
        UnknownNameError: there is none of that name.
        ModelError: Keras 3 has none any more.
    """
    own = keras.saving.get_registered_object(kind)
    if own is None and ">" in kind:
        own = keras.saving.get_registered_object(kind.rpartition(">")[2])
    if own is not None:
        return own  # type: ignore[no-any-return]
    bare = kind.rpartition(">")[2]
    found = getattr(keras.layers, _CLASSES.get(bare, bare), None)
    if isinstance(found, type):
        return found
    if kind in _NO_COUNTERPART:
        raise ModelError(f"The model has a layer {kind}, which Keras 3 does not have.", hint=_NO_COUNTERPART[kind])
    raise UnknownNameError(kind)


def arguments_of(kind: str, config: Mapping[str, Any]) -> dict[str, Any]:
    """Returns what a layer is made with in Keras 3.

    Args:
        kind: the class, as Keras 2 called it.
        config: of the layer, as Keras 2 wrote it.
    """
    own = {**_NOT_YET.get(kind, {}), **config}
    gone = _GONE.get(_CLASSES.get(kind, kind), {})
    kept = {
        _RENAMED.get((kind, key), key): _value(key, value)
        for key, value in own.items()
        if key not in _NEVER_MEANT and not (key in gone and gone[key] in (_ANY, value))
    }
    if "trainable" in kept and not _takes(class_of(kind), "trainable"):
        del kept["trainable"]
    if isinstance(kept.get("name"), str):
        kept["name"] = plain_name(kept["name"])
    if "axis" in kept and isinstance(kept["axis"], list) and len(kept["axis"]) == 1:
        kept["axis"] = kept["axis"][0]
    return kept


def _takes(made: type, argument: str) -> bool:
    parameters = inspect.signature(made).parameters
    return argument in parameters or any(each.kind is each.VAR_KEYWORD for each in parameters.values())


def _value(key: str, value: Any) -> Any:
    if key == "dtype":
        return _dtype(value)
    if key.endswith("activation"):
        name = value.get("config") if isinstance(value, dict) and value.get("class_name") == "function" else value
        if name == "hard_sigmoid" and keras.saving.get_registered_object("hard_sigmoid") is None:
            return hard_sigmoid
        return value
    if key.endswith("initializer") and isinstance(value, dict) and isinstance(value.get("config"), dict):
        # TensorFlow 1 wrote the type of the weights too.
        return {**value, "config": {name: each for name, each in value["config"].items() if name != "dtype"}}
    return value


def _dtype(value: Any) -> Any:
    """The name of a policy, which Keras 2 wrote as an object of a class that is gone."""
    if isinstance(value, dict) and value.get("class_name") in ("Policy", "PolicyV1"):
        return value["config"]["name"]
    return value
