"""Connects the layers of a functional model as Keras 2 wrote it down: ``inbound_nodes``.

A call is a structure of references ``[layer, call, output, keyword arguments]``, see ``Node.serialize`` in
github.com/keras-team/tf-keras. Keras 2 counts the calls of a model within a model from 1, those of a layer from 0.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import keras

from edgefl.errors import ModelError
from edgefl_converters.models.sources.keras_2.fixed_training import FixedTraining, depends_on_training
from edgefl_converters.models.sources.keras_2.operations import OPERATION_LAYERS, operation

__all__ = ["Graph"]

_CONSTANT = "_CONSTANT_VALUE"
_DAMAGED = "Copy the file again, or save the model again."
_MODELS = ("Functional", "Model", "Sequential")


class Graph:
    """The calls of one functional model, made one after the other.

    Args:
        config: of the model.
    """

    def __init__(self, config: Mapping[str, Any]) -> None:
        self._config = config
        self._names = {str(each["name"]) for each in config["layers"]}
        self._callers: dict[str, Callable[..., list[Any]]] = {}
        self._results: dict[str, list[list[Any]]] = {}
        self._waiting: dict[str, list[Any]] = {}
        self._first: dict[str, int] = {}
        for each in config["layers"]:
            name, kind = str(each["name"]), str(each["class_name"])
            self._waiting[name] = list(each.get("inbound_nodes") or [])
            self._results[name] = []
            self._first[name] = int(kind in _MODELS)
            if self.is_operation(each):
                self._callers[name] = operation(each)
        self._settle_counts()

    @staticmethod
    def is_operation(described: Mapping[str, Any]) -> bool:
        """Tells whether an entry among the layers is an operation of TensorFlow."""
        return described["class_name"] in OPERATION_LAYERS

    def add_input(self, described: Mapping[str, Any], tensor: Any) -> None:
        """Takes a tensor for an InputLayer."""
        self._results[described["name"]].append([tensor])
        self._waiting[described["name"]] = []

    def add_layer(self, described: Mapping[str, Any], layer: Any) -> None:
        """Takes a layer for an entry among the layers."""
        fixed: dict[bool, Any] = {}
        self._callers[described["name"]] = lambda first, **named: keras.tree.flatten(
            _called(layer, first, named, fixed)
        )

    def run(self) -> None:
        """Makes all calls of what was added, each as soon as what it needs is there.

        Raises:
            ModelError: some call needs what never comes.
            Exception: of any kind, Keras's own.
        """
        for name in self._names - set(self._callers):
            self._waiting[name].clear()
        while any(self._waiting.values()):
            moved = False
            for name, nodes in self._waiting.items():
                while nodes and self._ready(nodes[0]):
                    self._call(name, nodes.pop(0))
                    moved = True
            if not moved:
                stuck = next(name for name, nodes in self._waiting.items() if nodes)
                raise ModelError(f"What layer {stuck!r} is called with is not in the model.", hint=_DAMAGED)

    def inputs(self) -> Any:
        """The structure of the model's inputs."""
        return self._ports("input_layers")

    def outputs(self) -> Any:
        """The structure of the model's outputs."""
        return self._ports("output_layers")

    def _ports(self, key: str) -> Any:
        ports = self._config[key]
        if isinstance(ports, (list, tuple)) and len(ports) == 1 and not self._is_reference(ports):
            ports = ports[0]  # one tensor, not a list of one
        return self._resolved(ports)

    def _call(self, name: str, node: Any) -> None:
        keywords: dict[str, Any] = {}
        first = self._first_argument(node, keywords)
        given = {key: self._resolved(value) for key, value in keywords.items()}
        self._results[name].append(self._callers[name](first, **given))

    def _first_argument(self, node: Any, keywords: dict[str, Any]) -> Any:
        if self._is_reference(node):
            keywords.update(node[3] if len(node) > 3 else {})
            return self._tensor(node)
        if isinstance(node, (list, tuple)) and len(node) >= 3 and node[0] == _CONSTANT:
            keywords.update(node[3] if len(node) > 3 else {})
            return node[2]
        if isinstance(node, Mapping):
            return {key: self._first_argument(each, keywords) for key, each in node.items()}
        if isinstance(node, (list, tuple)):
            return [self._first_argument(each, keywords) for each in node]
        return node

    def _resolved(self, value: Any) -> Any:
        """A structure with tensors in the place of references."""
        if self._is_reference(value):
            return self._tensor(value)
        if isinstance(value, Mapping):
            return {key: self._resolved(each) for key, each in value.items()}
        if isinstance(value, (list, tuple)):
            return type(value)(self._resolved(each) for each in value)
        return value

    def _ready(self, value: Any) -> bool:
        if self._is_reference(value):
            made = self._results[value[0]]
            return 0 <= value[1] - self._first[value[0]] < len(made) and all(map(self._ready, value[3:]))
        if isinstance(value, Mapping):
            return all(map(self._ready, value.values()))
        if isinstance(value, (list, tuple)):
            return all(map(self._ready, value))
        return True

    def _tensor(self, reference: Any) -> Any:
        name, call, output = reference[:3]
        return self._results[name][call - self._first[name]][output]

    def _is_reference(self, value: Any) -> bool:
        return (
            isinstance(value, (list, tuple))
            and len(value) >= 3
            and isinstance(value[0], str)
            and value[0] in self._names
            and all(isinstance(each, int) for each in value[1:3])
        )

    def _settle_counts(self) -> None:
        """Believes the references where they count otherwise than the rule says; some versions of Keras 2 did."""
        found: dict[str, set[int]] = {}
        for each in self._config["layers"]:
            self._collect(each.get("inbound_nodes"), found)
        for key in ("input_layers", "output_layers"):
            self._collect(self._config[key], found)
        for name, calls in found.items():
            if min(calls) == 0:
                self._first[name] = 0
            elif max(calls) >= max(len(self._waiting[name]), 1):
                self._first[name] = 1

    def _collect(self, value: Any, found: dict[str, set[int]]) -> None:
        if self._is_reference(value):
            found.setdefault(value[0], set()).add(value[1])
            value = value[3:]
        for each in value.values() if isinstance(value, Mapping) else value if isinstance(value, (list, tuple)) else ():
            self._collect(each, found)


def _called(layer: Any, first: Any, keywords: Mapping[str, Any], fixed: dict[bool, Any]) -> Any:
    if isinstance(first, list) and len(first) == 1:
        first = first[0]
    named = {key: value for key, value in keywords.items() if value is not None}
    if set(named) == {"training"} and isinstance(named["training"], (bool, int)) and depends_on_training(layer):
        training = bool(named.pop("training"))
        name = f"{layer.name}_in_{'training' if training else 'inference'}"
        layer = fixed.setdefault(training, FixedTraining(layer, training, name=name))
    recurrent = isinstance(layer, (keras.layers.RNN, keras.layers.Bidirectional))
    if recurrent and isinstance(first, (list, tuple)):  # Keras 2 put the state beside the sequence
        mask = getattr(first[0], "_keras_mask", None)
        if mask is not None:
            named.setdefault("mask", mask)  # Keras 3 itself passes masks on to layers of one argument only
        return layer(first[0], initial_state=list(first[1:]), **named)
    return layer(first, **named)
