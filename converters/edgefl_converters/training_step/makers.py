"""Marks each op of a traced graph with what made it: a layer, the loss, the metrics, the optimizer."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import keras
import tensorflow as tf

from edgefl_converters.training_step.drawn_in_python import without_drawing

__all__ = ["attributed", "layer_of", "stage_scope"]

_LAYER = "edgefl_layer_"
_STAGE = "edgefl_stage_"


def layer_of(operation_name: str) -> int | str | None:
    """Returns what made an op: the index of a layer, or ``loss``, ``metrics``, ``optimizer``."""
    layers = re.findall(rf"{_LAYER}(\d+)", operation_name)
    if layers:
        return int(layers[-1])
    stages = re.findall(rf"{_STAGE}([a-z]+)", operation_name)
    return stages[-1] if stages else None


def stage_scope(name: str) -> Any:
    """The name scope of the ops of the loss, the metrics or the optimizer."""
    return tf.name_scope(f"{_STAGE}{name}")


@contextmanager
def attributed(layers: Sequence[Any]) -> Iterator[None]:
    """Puts every op that a layer makes under a name scope with the layer's index.

    Keras's own scopes carry layer names, which TensorFlow numbers again where they repeat: they lead to no one layer.
    """
    indices = {id(layer): index for index, layer in enumerate(layers)}
    call = keras.Layer.__call__

    def attributed_call(self: Any, *args: Any, **kwargs: Any) -> Any:
        index = indices.get(id(self))
        if index is None:
            return call(self, *args, **kwargs)
        with tf.name_scope(f"{_LAYER}{index}"):
            return without_drawing(self, lambda: call(self, *args, **kwargs))

    keras.Layer.__call__ = attributed_call
    try:
        yield
    finally:
        keras.Layer.__call__ = call
