"""Compiles a model as it was, as Keras 2 wrote it (Keras 3 writes the same into HDF5 files)."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import keras
from keras.src.legacy.saving import json_utils

from edgefl_converters.models.sources.keras_2.spelling import before_keras_3

__all__ = ["compile_as_configured", "decode"]

_SCALING = ("LossScaleOptimizer", "LossScaleOptimizerV3", "LossScaleOptimizerV1")
"""Around the optimizer, for mixed precision. Devices train in float32, where there is nothing to scale."""
_CHOSEN_BY_LOSS = {
    f"{kind}_{metric}": metric
    for kind in ("binary", "categorical", "sparse_categorical")
    for metric in ("accuracy", "crossentropy")
}
"""Functions that Keras takes for ``accuracy`` and ``crossentropy``."""
_GONE_FROM_OPTIMIZERS = ("jit_compile", "is_legacy_optimizer", "schedule_decay")


def decode(text: str | bytes) -> Any:
    """Reads Keras's JSON, which says tuples and shapes in its own way."""
    return json_utils.decode(text.decode() if isinstance(text, bytes) else text)


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
    optimizer = own.get("optimizer_config") or own.get("optimizer")
    if before_keras_3(version):
        own = _in_words_of_keras_3(own)
        optimizer = _optimizer(_in_words_of_keras_3(optimizer))
    model.compile(
        optimizer=keras.optimizers.get(optimizer),
        loss=_compiled(own.get("loss"), keras.losses),
        loss_weights=own.get("loss_weights"),
        metrics=_compiled(own.get("metrics"), keras.metrics),
        weighted_metrics=_compiled(own.get("weighted_metrics"), keras.metrics),
    )


def _optimizer(described: Any) -> Any:
    while isinstance(described, dict) and described.get("class_name") in _SCALING:
        inner = described["config"]
        described = inner.get("inner_optimizer") or inner["optimizer"]
    if not isinstance(described, dict):
        return described
    config = described["config"]
    if "lr" in config:
        config.setdefault("learning_rate", config.pop("lr"))
    if config.get("epsilon", 0) is None:
        del config["epsilon"]  # Keras 2 wrote None for its default
    for name in _GONE_FROM_OPTIMIZERS:
        config.pop(name, None)
    schedule = config.get("learning_rate")
    if isinstance(schedule, dict) and hasattr(keras.optimizers.schedules, str(schedule.get("class_name"))):
        settings = {key: value for key, value in schedule["config"].items() if key != "name" or value is not None}
        config["learning_rate"] = {
            "module": "keras.optimizers.schedules",
            "class_name": schedule["class_name"],
            "config": settings,
            "registered_name": None,
        }
    _let_decay_be_a_schedule(config)
    if hasattr(keras.optimizers, described["class_name"]):
        return {"module": "keras.optimizers", "class_name": described["class_name"], "config": config}
    return described


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
    if isinstance(value, (list, tuple)):
        return [_compiled(each, module) for each in value if each is not None or len(value) > 1]
    return value


def _mean_of(config: Mapping[str, Any]) -> Any:
    """The mean of a function; Keras 3 itself would keep its name in the place of the function."""
    own_name = str(config.get("name", "")).endswith(str(config["fn"]))
    if not own_name and config["fn"] in _CHOSEN_BY_LOSS:
        # Keras 2 chose among these by the loss, and chose wrong in a model that was saved before it was trained.
        return _CHOSEN_BY_LOSS[config["fn"]]
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


def _in_words_of_keras_3(value: Any) -> Any:
    if isinstance(value, Mapping):
        plain = {key: _in_words_of_keras_3(each) for key, each in value.items()}
        if plain.get("reduction") == "auto":  # what "auto" meant outside of tf.distribute
            plain["reduction"] = "sum_over_batch_size"
        kind, config = plain.get("class_name"), plain.get("config")
        if isinstance(kind, str) and isinstance(config, dict):
            # Keras 3 would look for "Custom>Adam", find nothing, and fall back on an Adam with its default settings.
            kind = plain["class_name"] = _without_package(kind)
            if hasattr(keras.losses, kind):
                config.pop("fn", None)  # the class knows its function
        return plain
    if isinstance(value, (list, tuple)):
        return type(value)(_in_words_of_keras_3(each) for each in value)
    return value


def _without_package(kind: str) -> str:
    name = kind.removeprefix("Custom>")
    return name if hasattr(keras.optimizers, name) or hasattr(keras.losses, name) else kind
