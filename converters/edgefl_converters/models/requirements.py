"""Checks what a model must have to be converted, before any work is done on it."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any

import keras
import numpy as np
from keras.src.layers.preprocessing.image_preprocessing.base_image_preprocessing_layer import (
    BaseImagePreprocessingLayer,
)

from edgefl.errors import ModelError, UnsupportedModelError
from edgefl_converters.models.compile_arguments import require_sound_arguments

__all__ = ["require_convertible"]


def require_convertible(model: keras.Model, *, waiting: Collection[str] = ()) -> None:
    """Refuses models that cannot become a file, or whose file would be useless, with what to do about it.

    Args:
        model: as it was loaded.
        waiting: names of layers that have not seen their data, and shall be as they are until somebody knows of it.

    Raises:
        ModelError: it is empty, a layer has not seen its data, a tensor holds nothing, a weight is not a number, or an
            argument of compile is none that can be meant.
        UnsupportedModelError: its inputs are text, sparse or ragged, or it is not float32.
    """
    if not model.layers and type(model) in (keras.Sequential, keras.Model):
        raise ModelError("The model is empty: it has no layers.", hint="Add layers, at least one with weights.")
    for tensor in keras.tree.flatten(getattr(model, "inputs", None) or []):
        _check_input(tensor)
    require_sound_arguments(model)
    _check_sizes(model)
    _check_ranks(model)
    layers = list(model._flatten_layers(include_self=False, recursive=True))
    for layer in layers:
        if layer.name not in waiting:
            _check_layer(layer)
    for layer in layers:
        dtype = layer.variable_dtype  # a mixed policy keeps its weights in float32; tracing sees what becomes of it
        if layer.weights and dtype not in ("float32", None) and str(dtype).startswith(("float", "bfloat")):
            raise UnsupportedModelError(
                f"Layer {layer.name!r} has weights in {dtype} (dtype policy {layer.dtype_policy.name!r}), "
                "devices train in float32 only.",
                hint="Build the model under keras.config.set_dtype_policy('float32') and copy the weights over: "
                "new.set_weights(old.get_weights()).",
                layer=layer.name,
            )
    _check_use(model)
    _check_values(model)


def _check_input(tensor: Any) -> None:
    name = tensor.name
    if tensor.dtype == "string":
        raise UnsupportedModelError(
            f"Input {name!r} takes strings, a model file takes numbers.",
            hint="Look text up before the model (the same layer as a preprocessing step), and feed it the numbers.",
        )
    for kind in ("sparse", "ragged"):
        if getattr(tensor, kind, False):
            raise UnsupportedModelError(
                f"Input {name!r} is {kind}, a model file takes dense arrays of fixed shape.",
                hint=f"Build the model with keras.Input(..., {kind}=False) and pad or densify the data.",
            )


def _check_sizes(model: Any) -> None:
    """Refuses tensors that hold nothing: of some, oneDNN ends the whole process."""
    for tensor in keras.tree.flatten(getattr(model, "inputs", None) or []):
        if 0 in tensor.shape:
            raise ModelError(
                f"Input {tensor.name!r} has shape {tuple(tensor.shape)}: a dimension of 0 leaves nothing to learn.",
                hint="Build the model with the shape of one example of your data.",
            )
    for node in _nodes(model):
        for tensor in node.outputs:
            if 0 in tensor.shape:
                name, kind = node.operation.name, type(node.operation).__name__
                raise ModelError(
                    f"Layer {name!r} ({kind}) gives {tuple(tensor.shape)}: a dimension of 0 leaves nothing to learn.",
                    hint="Give the layers before it larger inputs, or less cropping and smaller strides.",
                    layer=name,
                )


def _check_ranks(model: Any) -> None:
    """Refuses image layers that would take the rows of a batch for the rows of one image."""
    for node in _nodes(model):
        layer, shape = node.operation, tuple(node.input_tensors[0].shape) if node.input_tensors else ()
        if isinstance(layer, BaseImagePreprocessingLayer) and len(shape) != 4:
            raise ModelError(
                f"Layer {layer.name!r} ({type(layer).__name__}) takes images, rank 4 (rows, height, width, channels); "
                f"it is given rank {len(shape)}, {shape}.",
                hint="Give images their channels with keras.layers.Reshape((height, width, 1)) before it."
                if len(shape) == 3
                else "Put it where the model has images, or leave it out.",
                layer=layer.name,
            )


def _nodes(model: Any) -> Iterator[Any]:
    """The calls of the model's layers in their order; those within a layer that is a model come before it."""
    functional = getattr(model, "_functional", None) or model
    by_depth = getattr(functional, "_nodes_by_depth", None) or {}
    for depth in sorted(by_depth, reverse=True):
        for node in by_depth[depth]:
            if isinstance(node.operation, keras.Model):
                yield from _nodes(node.operation)
            yield node


def _check_layer(layer: Any) -> None:
    kind = type(layer).__name__
    if isinstance(layer, keras.layers.Normalization) and layer.input_mean is None:
        identity = layer.built and layer.mean is not None and _is_identity(layer)
        empty = layer.mean is None or identity
    elif isinstance(layer, keras.layers.Discretization):
        empty = layer.bin_boundaries is None
    elif kind in ("TextVectorization", "StringLookup"):
        raise UnsupportedModelError(
            f"Layer {layer.name!r} ({kind}) works on strings, a model file takes numbers.",
            hint="Use it before the model as a preprocessing step, and give the model the numbers that it returns.",
            layer=layer.name,
        )
    elif kind == "IntegerLookup":
        empty = layer.vocabulary_size() <= layer.num_oov_indices + (layer.mask_token is not None)
    else:
        return
    if empty:
        raise ModelError(
            f"Layer {layer.name!r} ({kind}) has not seen any data: its values are learnt by adapt, not by training.",
            hint="Call adapt(data) on it before converting, or give its values to its constructor."
            + (" Or let devices tell, with a file of `normalization='identity'`." if kind == "Normalization" else ""),
            layer=layer.name,
        )


def _is_identity(layer: Any) -> bool:
    """Tells whether it holds the values that it begins with; a file keeps these when the layer was never adapted."""
    mean, variance = np.asarray(layer.adapt_mean), np.asarray(layer.adapt_variance)
    return bool((mean == 0).all() and ((variance == 1).all() or (variance == 0).all()))


def _check_use(model: Any) -> None:
    functional = getattr(model, "_functional", None) or model
    inputs, by_depth = getattr(functional, "inputs", None), getattr(functional, "_nodes_by_depth", None)
    if not inputs or by_depth is None:
        return
    used = {id(tensor) for nodes in by_depth.values() for node in nodes for tensor in node.input_tensors}
    outputs = {id(tensor) for tensor in keras.tree.flatten(functional.outputs)}
    for tensor in keras.tree.flatten(inputs):
        if id(tensor) not in used | outputs:
            raise ModelError(
                f"Input {tensor.name!r} is not used: no layer of the model takes it.",
                hint="Take it out of the model's inputs, or connect it.",
            )


def _check_values(model: Any) -> None:
    for variable in model.weights:
        if str(variable.dtype).startswith(("float", "bfloat")):
            values = keras.ops.convert_to_numpy(variable)
            if not np.isfinite(values.astype(np.float32)).all():
                raise ModelError(
                    f"Weight {variable.path!r} holds values that are not finite numbers (NaN or infinite).",
                    hint="Training diverged or a file is damaged: load weights from before that.",
                )
