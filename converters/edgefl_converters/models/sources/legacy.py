"""Models from the configuration that Keras 2 wrote into HDF5 files and SavedModels (Keras 3 writes HDF5 in it too)."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import keras
from keras.src.legacy.saving import json_utils, saving_options, saving_utils
from keras.src.saving.serialization_lib import SafeModeScope

__all__ = ["compile_as_configured", "decode", "model_from"]

_ANY = object()
_SEPARABLE = {"groups": 1, "kernel_initializer": _ANY, "kernel_regularizer": _ANY, "kernel_constraint": _ANY}
_RECURRENT = {"time_major": False, "implementation": _ANY}
_GONE: dict[str, dict[str, Any]] = {
    "DepthwiseConv1D": _SEPARABLE,
    "DepthwiseConv2D": _SEPARABLE,
    "SeparableConv1D": _SEPARABLE,
    "SeparableConv2D": _SEPARABLE,
    "LSTM": _RECURRENT,
    "GRU": _RECURRENT,
    "SimpleRNN": _RECURRENT,
    "RNN": _RECURRENT,
    "LSTMCell": {"implementation": _ANY},
    "GRUCell": {"implementation": _ANY},
    "MultiHeadAttention": {
        "query_shape": _ANY,
        "key_shape": _ANY,
        "value_shape": _ANY,
        "softmax_robust_masking": False,
    },
    "Embedding": {"input_length": _ANY},
}
"""Arguments that Keras 2 wrote and Keras 3 refuses, with the value at which they meant nothing."""
_NESTED = ("layer", "forward_layer", "backward_layer", "cell")
"""Arguments of wrappers that are layers; without their module Keras 3 does not find them."""


def decode(text: str | bytes) -> Any:
    """Reads Keras's JSON, which says tuples and shapes in its own way."""
    return json_utils.decode(text.decode() if isinstance(text, bytes) else text)


def model_from(config: Mapping[str, Any], version: str) -> keras.Model:
    """Builds a model without running code from its configuration (a Lambda's is refused).

    Args:
        config: as Keras wrote it, with ``class_name`` and ``config``.
        version: of the Keras that wrote it.

    Raises:
        Exception: of any kind, Keras's own.
    """
    own = copy.deepcopy(dict(config))
    if _before_keras_3(version):
        own = _in_words_of_keras_3(own)
        _rewire(own)
    with saving_options.keras_option_scope(use_legacy_config=True), SafeModeScope(True):
        return saving_utils.model_from_config(own)


def compile_as_configured(model: keras.Model, training: Mapping[str, Any], version: str) -> None:
    """Compiles a model as the configuration says.

    Args:
        model: that it belongs to.
        training: loss, metrics and optimizer as Keras wrote them.
        version: of the Keras that wrote it.

    Raises:
        Exception: of any kind, Keras's own.
    """
    own = copy.deepcopy(dict(training))
    optimizer = own["optimizer_config"]
    if _before_keras_3(version):
        own = _in_words_of_keras_3(own)
        optimizer = own["optimizer_config"]
        _let_decay_be_a_schedule(optimizer["config"])
        for name in ("jit_compile", "is_legacy_optimizer"):
            optimizer["config"].pop(name, None)
    model.compile(
        optimizer=keras.optimizers.deserialize(optimizer),
        loss=_compiled(own.get("loss"), keras.losses),
        loss_weights=own.get("loss_weights"),
        metrics=_compiled(own.get("metrics"), keras.metrics),
        weighted_metrics=_compiled(own.get("weighted_metrics"), keras.metrics),
    )


def _before_keras_3(version: str) -> bool:
    return version.startswith(("1.", "2."))


def _compiled(value: Any, module: Any) -> Any:
    """A loss or metrics as `compile` takes them. Keras 3 itself fails on short names in old files, such as ``mse``."""
    if isinstance(value, str):
        own = keras.saving.get_registered_object(value)
        if own is None and value not in ("accuracy", "acc", "crossentropy", "ce"):
            module.get(value)  # raises for a name that is not known, which compile does much later
        return value if own is None else own
    if isinstance(value, Mapping):
        if value.get("class_name") == "MeanMetricWrapper":
            return _mean_of(value["config"])
        if "class_name" in value:
            return module.deserialize(dict(value))
        return {name: _compiled(each, module) for name, each in value.items()}
    return [_compiled(each, module) for each in value] if isinstance(value, (list, tuple)) else value


def _mean_of(config: Mapping[str, Any]) -> Any:
    """The mean of a function; Keras 3 itself would keep its name in the place of the function."""
    function = keras.saving.get_registered_object(config["fn"]) or keras.metrics.get(config["fn"])
    settings = {key: each for key, each in config.items() if key != "fn"}
    if isinstance(function, keras.metrics.Metric):
        return type(function)(**settings)
    return keras.metrics.MeanMetricWrapper(function, **settings)


def _let_decay_be_a_schedule(config: dict[str, Any]) -> None:
    """Old optimizers divided the learning rate by 1 + decay × steps; Keras 3 would leave that out."""
    decay = config.pop("decay", None)
    if decay:
        settings = {"initial_learning_rate": config["learning_rate"], "decay_steps": 1, "decay_rate": decay}
        config["learning_rate"] = {
            "module": "keras.optimizers.schedules",
            "class_name": "InverseTimeDecay",
            "config": settings,
            "registered_name": None,
        }


def _rewire(config: dict[str, Any]) -> None:
    """Says which layer calls which in a way that Keras 3 understands.

    Keras 2 counts the call that made a nested model as its first, Keras 3 knows that of functional ones only; and
    Keras 3 does not find tensors among keyword arguments of the old form.
    """
    inner = config["config"]
    if not isinstance(inner, dict):
        return
    layers = [each for each in inner.get("layers", ()) if isinstance(each, dict)]
    for layer in layers:
        _rewire(layer)
    sequential = {each.get("name") for each in layers if each.get("class_name") == "Sequential"}
    nodes = [node for each in layers for node in each.get("inbound_nodes", ())]
    for reference in _references([inner.get("input_layers"), inner.get("output_layers"), nodes]):
        if reference[0] in sequential:
            reference[1] -= 1
    for layer in layers:
        if layer.get("inbound_nodes"):
            layer["inbound_nodes"] = [_with_tensors_by_name(node) for node in layer["inbound_nodes"]]
    for ports in ("input_layers", "output_layers"):
        if isinstance(inner.get(ports), list) and len(inner[ports]) == 1:
            inner[ports] = inner[ports][0]  # one tensor, not a list of one


def _references(value: Any) -> list[list[Any]]:
    """The ``[layer, call, output, …]`` lists in a configuration, wherever they stand."""
    if isinstance(value, Mapping):
        return [found for each in value.values() for found in _references(each)]
    if not isinstance(value, (list, tuple)):
        return []
    own = [value] if isinstance(value, list) and _is_reference(value) else []
    return [*own, *(found for each in value for found in _references(each))]


def _is_reference(value: Any) -> bool:
    return isinstance(value, list) and len(value) >= 3 and isinstance(value[0], str) and isinstance(value[1], int)


def _with_tensors_by_name(node: Any) -> Any:
    """A call in the form of Keras 3, if any of its keyword arguments is a tensor."""
    if not isinstance(node, list) or not all(map(_is_reference, node)):
        return node
    keywords = {name: each for one in node if len(one) > 3 for name, each in one[3].items()}
    if not _references(keywords):
        return node
    tensors = [_tensor(each) for each in node]
    return {"args": [tensors[0] if len(tensors) == 1 else tensors], "kwargs": _tensor(keywords)}


def _tensor(value: Any) -> Any:
    if _is_reference(value):
        history = {"shape": [], "dtype": "float32", "keras_history": value[:3]}
        return {"class_name": "__keras_tensor__", "config": history}
    if isinstance(value, Mapping):
        return {name: _tensor(each) for name, each in value.items()}
    return [_tensor(each) for each in value] if isinstance(value, (list, tuple)) else value


def _in_words_of_keras_3(value: Any) -> Any:
    if isinstance(value, Mapping):
        plain = {key: _in_words_of_keras_3(each) for key, each in value.items()}
        if plain.get("reduction") == "auto":  # what "auto" meant outside of tf.distribute
            plain["reduction"] = "sum_over_batch_size"
            plain.pop("fn", None)
        for name in _NESTED:
            if isinstance(plain.get(name), dict) and hasattr(keras.layers, plain[name].get("class_name", "")):
                plain[name].setdefault("module", "keras.layers")
        kind, config = plain.get("class_name"), plain.get("config")
        if isinstance(kind, str) and isinstance(config, dict):
            # Keras 3 would look for "Custom>Adam", find nothing, and fall back on an Adam with its default settings.
            kind = plain["class_name"] = _without_package(kind)
            if kind == "Lambda" and isinstance(config.get("function"), tuple):
                config["function"] = list(config["function"])  # as in HDF5 files, so that it is refused alike
            for name, neutral in _GONE.get(kind, {}).items():
                if neutral is _ANY or config.get(name) == neutral:
                    config.pop(name, None)
        return plain
    if isinstance(value, (list, tuple)):
        return type(value)(_in_words_of_keras_3(each) for each in value)
    return value


def _without_package(kind: str) -> str:
    name = kind.removeprefix("Custom>")
    return name if hasattr(keras.optimizers, name) or hasattr(keras.losses, name) else kind
