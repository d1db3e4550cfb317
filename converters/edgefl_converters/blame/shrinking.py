"""Shrinks a model that fails to the smallest layer that fails on its own, within a stated time."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import keras

__all__ = ["Piece", "shrink"]

_SECONDS = 15.0
"""Seconds of a processor that are spent on finding the layer before the plain error is given. A refusal is to come in
half a minute, and what failed took its part of that. What else the machine does must not change what an error says."""


def _processor_seconds() -> float:
    """Seconds that this process has computed, and the runtimes' processes that it waited for."""
    used = os.times()
    return used.user + used.system + used.children_user + used.children_system


@dataclass(frozen=True)
class Piece:
    """The smallest piece of a model that was found to fail.

    Attributes:
        name: of the Keras layer.
        kind: its class.
        configuration: of its constructor, only what is not default.
        error: how it fails on its own.
    """

    name: str
    kind: str
    configuration: str
    error: Exception

    def __str__(self) -> str:
        told = f"layer {self.name!r} ({self.kind})"
        return f"{told} with {self.configuration}" if self.configuration else told


def shrink(
    model: Any,
    fails: Callable[[Any], Exception | None],
    *,
    first: str | None = None,
    seconds: float = _SECONDS,
    on_sound: Callable[[str, bool], None] = lambda name, tried: None,
    clock: Callable[[], float] = _processor_seconds,
) -> Piece | None:
    """Looks for one layer that fails in a model of its own: same configuration, input shapes and weights.

    Args:
        model: Sequential or Functional, also nested; of others nothing is found.
        fails: takes a small compiled model and returns its error, or None.
        first: name of the layer to begin with.
        seconds: no new layer is tried that would not be done by then, if it took as long as the slowest so far.
        on_sound: called with the name of each layer that does not fail, or for which there is no time, and whether it
            was tried.
        clock: for tests.

    Returns:
        The first layer in the model's order that fails, or None.
    """
    before = clock()
    end, slowest = before + seconds, 0.0
    tried: set[str] = set()
    for layer, node, at_input in sorted(_calls(model), key=lambda each: each[0].name != first):
        if before + slowest < end:
            now = clock()
            before, slowest = now, max(slowest, now - before)
        if before + slowest >= end:
            on_sound(layer.name, False)
            continue
        try:
            key = f"{type(layer)} {_config(layer)} {[each.shape for each in node.input_tensors]} {layer.trainable}"
            if key in tried:
                continue
            tried.add(key)
            small = _alone(layer, node, at_input)
        except Exception:  # noqa: S112 - a layer that cannot stand alone is not the smallest piece
            continue
        error = fails(small)
        if error is not None:
            return Piece(layer.name, type(layer).__name__, configuration_of(layer), error)
        on_sound(layer.name, True)
    return None


def configuration_of(layer: Any) -> str:
    """The arguments of a layer's constructor that are not default: ``filters=4, strides=(2, 2)``."""
    try:
        config, parameters = layer.get_config(), inspect.signature(type(layer).__init__).parameters
    except Exception:
        return ""
    told = []
    for name, value in config.items():
        default = parameters[name].default if name in parameters else inspect.Parameter.empty
        if name in ("name", "dtype", "trainable", "batch_shape") or name.endswith("_initializer"):
            continue
        if value is None or value == default or (isinstance(value, (list, tuple)) and _same(value, default)):
            continue
        if isinstance(value, dict):
            value = value.get("class_name", "…")
        told.append(f"{name}={value!r}")
    return ", ".join(told)


def _same(value: Any, default: Any) -> bool:
    """Keras turns ``strides=1`` into ``(1, 1)``."""
    return (
        all(each == default for each in value)
        if not isinstance(default, (list, tuple))
        else list(value) == list(default)
    )


def _config(layer: Any) -> dict[str, Any]:
    return {name: value for name, value in layer.get_config().items() if name != "name"}


def _calls(model: Any) -> Iterator[tuple[Any, Any, bool]]:
    """Every layer that is no model itself, with a call of it, and whether it is fed by the model's inputs alone."""
    functional = getattr(model, "_functional", None) or model
    for depth in sorted(getattr(functional, "_nodes_by_depth", None) or {}, reverse=True):
        for node in functional._nodes_by_depth[depth]:
            layer = node.operation
            if isinstance(layer, keras.Model):
                yield from _calls(layer)
            elif isinstance(layer, keras.Layer) and node.input_tensors:
                makers = [tensor._keras_history.operation for tensor in node.input_tensors]
                yield layer, node, all(isinstance(maker, keras.layers.InputLayer) for maker in makers)


def _alone(layer: Any, node: Any, at_input: bool) -> Any:
    """A model around a copy of the layer; something to learn before it makes the gradient pass through it."""
    inputs, tensors = [], {}
    for index, tensor in enumerate(node.input_tensors):
        given = keras.Input(tensor.shape[1:], dtype=tensor.dtype, name=f"x{index}")
        learns = tensor.dtype == "float32" and not at_input and len(tensor.shape) > 1
        tensors[id(tensor)] = keras.layers.Dense(tensor.shape[-1])(given) if learns else given
        inputs.append(given)
    copy = type(layer).from_config(layer.get_config())
    copy.trainable = layer.trainable
    args, kwargs = node.arguments.fill_in(tensors)
    outputs = [each for each in keras.tree.flatten(copy(*args, **kwargs)) if each.dtype == "float32"]
    copy.set_weights(layer.get_weights())
    heads = [keras.layers.Dense(1)(keras.layers.Reshape((-1,))(each)) for each in outputs]
    small = keras.Model(inputs, heads[0] if len(heads) == 1 else keras.layers.Add()(heads))
    small.compile("sgd", "mse")
    return small
