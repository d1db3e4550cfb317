"""Models from their configuration in the form of Keras 2, layer by layer and call by call."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import keras
from keras.src.legacy.saving import saving_options
from keras.src.saving.serialization_lib import SafeModeScope

from edgefl_converters.models.sources.keras_2.calls import Graph
from edgefl_converters.models.sources.keras_2.spelling import OF_CUDNN, arguments_of, class_of, plain_name

__all__ = ["Rebuilt", "rebuild"]

_GRAPHS = ("Functional", "Model")
_METRIC = "AddMetric"
"""It computes a figure and nothing of the model; metrics are given to compile."""
_NESTED = ("layer", "forward_layer", "backward_layer", "cell")
"""Arguments of wrappers that are layers themselves."""


@dataclass(frozen=True)
class Rebuilt:
    """A model with new weights, not compiled, and its layers as the file has them.

    Attributes:
        model: Sequential or functional.
        order: of each model in it, by identity: its layers with their names in the file.
        renamed: the class in the file of layers of which Keras 3 has that of another name, by identity.
    """

    model: keras.Model
    order: Mapping[int, Sequence[tuple[str, Any]]]
    renamed: Mapping[int, str]

    def layers_of(self, layer: Any) -> list[tuple[str, Any]]:
        """Layers directly in a layer, with their names in the file."""
        own = self.order.get(id(layer))
        return list(own) if own is not None else [(each.name, each) for each in layer._layers]

    def is_model(self, layer: Any) -> bool:
        """Tells whether a layer is a model, whose layers the file lists."""
        return id(layer) in self.order


def rebuild(config: Mapping[str, Any]) -> Rebuilt:
    """Builds a Sequential or functional model. No code is run from the configuration.

    Args:
        config: as Keras 2 wrote it, with ``class_name`` and ``config``.

    Raises:
        UnknownNameError: it has a layer of a class that is not known.
        ModelError: it has what Keras 3 cannot do.
        Exception: of any kind, Keras's own.
    """
    with saving_options.keras_option_scope(use_legacy_config=True), SafeModeScope(True):
        layers = _Layers()
        return Rebuilt(layers.made(copy.deepcopy(dict(config))), layers.order, layers.renamed)


class _Layers:
    """Makes layers, those that several models share once."""

    def __init__(self) -> None:
        self.order: dict[int, list[tuple[str, Any]]] = {}
        self.renamed: dict[int, str] = {}
        self._shared: dict[Any, Any] = {}

    def made(self, described: Mapping[str, Any]) -> Any:
        shared = described.get("shared_object_id")
        if shared is not None and shared in self._shared:
            return self._shared[shared]
        layer = self._make(str(described["class_name"]), described)
        if shared is not None:
            self._shared[shared] = layer
        return layer

    def _make(self, kind: str, described: Mapping[str, Any]) -> Any:
        config = described["config"]
        if kind == "Sequential":
            return self._sequential(config, described.get("build_config"))
        if kind in _GRAPHS and "input_layers" in config:
            return self._functional(config)
        if kind == "InputLayer":
            return keras.layers.InputLayer(**_input(config))
        made = class_of(kind)
        own = arguments_of(kind, config)
        for name in _NESTED:
            if _is_layer(own.get(name)):
                own[name] = self.made(own[name])
        if isinstance(own.get("cells"), list) and all(map(_is_layer, own["cells"])):
            own["cells"] = [self.made(each) for each in own["cells"]]
        if made.__module__.startswith("keras."):
            layer = made(**own)
            if kind in OF_CUDNN:
                self.renamed[id(layer)] = kind
            return layer
        return made.from_config({key: _as_written(each) for key, each in own.items()})  # type: ignore[attr-defined]

    def _sequential(self, config: Any, build_config: Any) -> keras.Sequential:
        described = config if isinstance(config, list) else config["layers"]  # Keras before 2.2.3 wrote a list
        name = None if isinstance(config, list) else plain_name(config["name"])
        layers = [self.made(each) for each in described]
        first = described[0]["config"] if described else {}
        if isinstance(first, dict) and first.get("batch_input_shape") and described[0]["class_name"] != "InputLayer":
            layers.insert(0, keras.layers.InputLayer(**_input({**first, "name": f"{layers[0].name}_input"})))
        model = keras.Sequential(layers, name=name)
        shape = config.get("build_input_shape") if isinstance(config, dict) else None
        shape = shape or (build_config or {}).get("input_shape")
        if not model.built and layers and isinstance(layers[0], keras.Model) and layers[0].built:
            model.build(layers[0].input_shape)
        elif not model.built and layers and shape:
            model.build(tuple(shape))
        names = [str(each["config"]["name"]) if isinstance(each["config"], dict) else None for each in described]
        self.order[id(model)] = [
            (name or layer.name, layer) for name, layer in zip(names, layers[len(layers) - len(names) :], strict=True)
        ]
        return model

    def _functional(self, config: Mapping[str, Any]) -> keras.Model:
        graph = Graph(config)
        order = []
        for described in config["layers"]:
            if graph.is_operation(described) or described["class_name"] == _METRIC:
                continue
            if described["class_name"] == "InputLayer":
                graph.add_input(described, keras.Input(**_input(described["config"])))
            else:
                layer = self.made(described)
                graph.add_layer(described, layer)
                order.append((str(described["name"]), layer))
        graph.run()
        model = keras.Model(graph.inputs(), graph.outputs(), name=plain_name(config["name"]))
        if config.get("trainable") is False:
            model.trainable = False
        self.order[id(model)] = order
        return model


def _input(config: Mapping[str, Any]) -> dict[str, Any]:
    dtype = config.get("dtype")
    return {
        "batch_shape": tuple(config.get("batch_input_shape") or config.get("batch_shape") or ()),
        "dtype": dtype if isinstance(dtype, str) and not dtype.startswith("mixed") else "float32",
        "sparse": bool(config.get("sparse")),
        "ragged": bool(config.get("ragged")),
        "name": plain_name(config["name"]),
    }


def _as_written(value: Any) -> Any:
    """Layers as a class of the user's own expects them in its configuration."""
    if isinstance(value, keras.layers.Layer):
        return keras.saving.serialize_keras_object(value)
    return [_as_written(each) for each in value] if isinstance(value, list) else value


def _is_layer(value: Any) -> bool:
    return isinstance(value, dict) and "class_name" in value and isinstance(value.get("config"), (dict, list))
