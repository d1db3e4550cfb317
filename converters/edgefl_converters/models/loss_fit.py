"""Losses that run on a model's output but cannot mean what was intended: one class, scores instead of probabilities."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import keras

from edgefl.errors import ModelError

__all__ = ["require_fitting_loss"]

_NOT_PROBABILITIES = frozenset(
    {
        "linear",
        "relu",
        "relu6",
        "leaky_relu",
        "elu",
        "selu",
        "celu",
        "gelu",
        "silu",
        "swish",
        "mish",
        "softplus",
        "softsign",
        "tanh",
        "exponential",
    }
)
"""Keras activations whose values are not confined to [0, 1]."""
_PASS_ON = ("Reshape", "Flatten", "Dropout", "Permute")
"""Layers that leave the values of an output as they are."""


def require_fitting_loss(model: keras.Model) -> None:
    """Refuses a cross-entropy that its output cannot serve. Shapes that Keras itself refuses are found by tracing.

    Args:
        model: compiled; a Functional or Sequential model, of others only shapes are looked at.

    Raises:
        ModelError: says which output, what its loss expects and what to change.
    """
    outputs = keras.tree.flatten(getattr(model, "outputs", None) or [])
    _check_names(model)
    for tensor, loss in zip(outputs, _losses(model, len(outputs)), strict=False):
        kind = _kind(loss)
        if kind is not None:
            _check(tensor, loss, kind)


def _check_names(model: Any) -> None:
    given, names = model.loss, list(getattr(model, "output_names", None) or [])
    keys = _keys(model)
    if isinstance(given, dict) and names and not set(given) & {*names, *keys}:
        raise ModelError(
            f"The compiled losses are for {', '.join(map(repr, given))}, the model's outputs are "
            f"{', '.join(map(repr, keys or names))}.",
            hint="Compile with loss={output name: loss}.",
        )


def _check(tensor: Any, loss: Any, kind: str) -> None:
    units = tensor.shape[-1]
    name = _output_name(tensor)
    loss_name = _name(loss)
    if kind != "binary" and units == 1:
        raise ModelError(
            f"{loss_name} expects an output with one score for each of at least two classes, output {name!r} has "
            f"shape {tuple(tensor.shape)}.",
            hint="Give the last layer one unit for each class, or use binary_crossentropy with one sigmoid unit.",
        )
    activation = _activation(tensor)
    from_logits = bool(getattr(loss, "from_logits", False) or _config(loss).get("from_logits", False))
    if kind == "binary" and activation == "softmax" and units == 1:
        raise ModelError(
            f"Output {name!r} is a softmax over one unit, which is always 1.", hint="Use activation='sigmoid'."
        )
    if from_logits and activation in ("softmax", "sigmoid"):
        _name_logits(tensor, name, loss_name, activation)
    if not from_logits and activation in _NOT_PROBABILITIES:
        probability = "sigmoid" if kind == "binary" else "softmax"
        raise ModelError(
            f"{loss_name} expects probabilities, output {name!r} has activation {activation!r}, whose values are not "
            "between 0 and 1.",
            hint=f"Use activation='{probability}' in the last layer, or the loss with from_logits=True.",
        )


def _name_logits(tensor: Any, name: str, loss_name: str, activation: str) -> None:
    """Says that a loss for scores is given probabilities, which Keras mends where the activation comes last."""
    seen = (
        f"Output {name!r} is a {activation}, and {loss_name} has from_logits=True, which expects no {activation} before"
    )
    last = next(_makers(tensor))
    if type(last).__name__ in _PASS_ON:
        raise ModelError(
            f"{seen}: the {activation} would be applied twice.",
            hint=f"Use the loss with from_logits=False, or leave the {activation} out.",
        )
    warnings.warn(
        f"{seen}; as in Keras, the model is trained on what goes into the {activation}. Say from_logits=False.",
        UserWarning,
        stacklevel=2,
    )


def _kind(loss: Any) -> str | None:
    """``binary``, ``classes`` or None for losses on any numbers."""
    name = _name(loss).lower().replace("_", "")
    if "binary" in name and "crossentropy" in name:
        return "binary"
    if "categorical" in name and "crossentropy" in name:
        return "classes"
    return None


def _name(loss: Any) -> str:
    return loss if isinstance(loss, str) else getattr(loss, "__name__", None) or type(loss).__name__


def _config(loss: Any) -> dict[str, Any]:
    return dict(loss.get_config()) if isinstance(loss, keras.losses.Loss) else {}


def _losses(model: Any, count: int) -> Sequence[Any]:
    given = model.loss
    if isinstance(given, dict):
        names = list(getattr(model, "output_names", []))
        if set(given) <= set(keys := _keys(model)):
            names = keys
        return [given.get(name) for name in names]
    if isinstance(given, (list, tuple)):
        return list(given)
    return [given] * count


def _keys(model: Any) -> list[str]:
    """The keys of a model that returns a dict, in the order of its outputs; Keras takes them in `loss` too."""
    structure = getattr(model, "_outputs_struct", None)
    return list(keras.tree.flatten({key: key for key in structure})) if isinstance(structure, dict) else []


def _output_name(tensor: Any) -> str:
    history = getattr(tensor, "_keras_history", None)
    return str(history.operation.name) if history is not None else "output"


def _activation(tensor: Any) -> str | None:
    """Name of the activation that an output went through last; None where that cannot be seen."""
    for operation in _makers(tensor):
        kind = type(operation).__name__
        if kind in _PASS_ON:
            continue
        if kind == "Softmax":
            return "softmax"
        if kind in ("ReLU", "LeakyReLU", "ELU", "PReLU"):
            return "relu"
        if isinstance(operation, (keras.layers.Dense, keras.layers.Activation)) or "Conv" in kind:
            return getattr(getattr(operation, "activation", None), "__name__", None)
        return None
    return None


def _makers(tensor: Any) -> Iterator[Any]:
    """The operations that made an output, the last one first, along a chain without branches."""
    while (history := getattr(tensor, "_keras_history", None)) is not None:
        operation, node_index, tensor_index = history
        if isinstance(operation, keras.Model):
            inner = keras.tree.flatten(operation.outputs or [])
            if tensor_index >= len(inner):
                return
            tensor = inner[tensor_index]
            continue
        yield operation
        inputs = operation._inbound_nodes[node_index].input_tensors
        if len(inputs) != 1:
            return
        tensor = inputs[0]
