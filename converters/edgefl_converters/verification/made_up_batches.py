"""Made-up data that fits a model: verification compares arithmetic, so what the data means does not matter."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import keras
import numpy as np
from numpy.typing import NDArray

from edgefl_converters.training_step.ports import Port
from edgefl_converters.training_step.specification import Specification

__all__ = ["NUMBERS", "Batch", "Numbers", "draw_batches", "federated_batches"]

Numbers = Literal["normal", "positive", "whole"]
NUMBERS: tuple[Numbers, ...] = get_args(Numbers)
"""Kinds of numbers, in the order in which they are tried: normal ones; between 0 and 1, for a model that takes their
logarithm; 0 and 1, for one of which an input is labels, whatever type it has."""

_Range = tuple[float, float]
_IGNORED = 0.25
"""The share of labels that are the one which a loss leaves out; the first of a batch never is."""


@dataclass(frozen=True)
class Batch:
    """One full batch.

    Attributes:
        inputs: one array per model input, rows first.
        targets: one array per target.
        seed: for the model's random numbers in this step.
    """

    inputs: tuple[NDArray[Any], ...]
    targets: tuple[NDArray[Any], ...]
    seed: int

    def rows(self, count: int) -> Batch:
        """The first rows only."""
        return Batch(
            tuple(array[:count] for array in self.inputs), tuple(array[:count] for array in self.targets), self.seed
        )


def draw_batches(
    specification: Specification, count: int, generator: np.random.Generator, *, numbers: Numbers = "normal"
) -> list[Batch]:
    """Draws batches for a model.

    Numbers of inputs lie in the range that a layer asks for (``value_range``, as augmentation has it), or are what
    is asked for; tokens are drawn from the vocabulary, labels from the classes, and other targets from what their loss
    is defined on.

    Args:
        specification: of the model.
        count: how many.
        generator: where the numbers come from.
        numbers: one of `NUMBERS`.
    """
    vocabularies = [2 if size is None and numbers == "whole" else size for size in _vocabularies(specification)]
    ranges = [each or ((0.0, 1.0) if numbers == "positive" else None) for each in _value_ranges(specification)]
    kinds = [_target_kind(specification, port) for port in specification.targets]
    return [
        Batch(
            tuple(
                _input(port, size, bounds, generator)
                for port, size, bounds in zip(specification.inputs, vocabularies, ranges, strict=True)
            ),
            tuple(_target(port, kind, generator) for port, kind in zip(specification.targets, kinds, strict=True)),
            seed=int(generator.integers(1, 2**31)),
        )
        for _ in range(count)
    ]


def federated_batches(batches: Sequence[Batch]) -> Sequence[Batch]:
    """Those of the steps with a proximal term and a correction; the first one is taken without."""
    return batches[:3]


def _value_ranges(specification: Specification) -> list[_Range | None]:
    """Returns for each input what its numbers must lie between; None where no layer says it."""
    layers = [each for each in specification.model._flatten_layers() if _range_of(each) is not None]
    if not layers:
        return [None] * len(specification.inputs)
    wanted = {id(tensor): layer for layer in layers for tensor in _direct_inputs(layer)}
    chosen = [wanted.get(id(tensor), layers[0]) for tensor in _input_tensors(specification)]
    scales = [each for each in specification.model._flatten_layers() if isinstance(each, keras.layers.Rescaling)]
    return [
        _before(scales, layer, _range_of(layer)) if len(port.shape) > 2 else None
        for port, layer in zip(specification.inputs, chosen, strict=True)
    ]


def _range_of(layer: Any) -> _Range | None:
    bounds = getattr(layer, "value_range", None)
    if not isinstance(bounds, (list, tuple)) or len(bounds) != 2:
        return None
    return float(bounds[0]), float(bounds[1])


def _before(scales: Sequence[Any], layer: Any, bounds: _Range | None) -> _Range | None:
    """Takes the range of a layer back through a Rescaling right before it."""
    made = {id(tensor) for tensor in _direct_inputs(layer)}
    for each in scales:
        if bounds is not None and any(id(node.output_tensors[0]) in made for node in each._inbound_nodes):
            scale, offset = np.max(each.scale), np.max(each.offset)
            first, last = sorted(float((end - offset) / scale) for end in bounds)
            return first, last
    return bounds


def _input(port: Port, vocabulary: int | None, bounds: _Range | None, generator: np.random.Generator) -> NDArray[Any]:
    if vocabulary is not None:
        return generator.integers(0, vocabulary, port.shape).astype(port.dtype)
    if bounds is not None and port.dtype.startswith("float"):
        return generator.uniform(*bounds, port.shape).astype(port.dtype)
    if bounds is not None and port.dtype != "bool":
        return generator.integers(int(bounds[0]), int(bounds[1]) + 1, port.shape).astype(port.dtype)
    if port.dtype.startswith(("int", "uint", "bool")):
        return generator.integers(0, 2, port.shape).astype(port.dtype)
    return generator.standard_normal(port.shape).astype(port.dtype)


def _target(port: Port, kind: str, generator: np.random.Generator) -> NDArray[Any]:
    if kind == "sequence":
        return _sequences(port, generator)
    if port.classes is not None:
        labels = generator.integers(0, port.classes, port.shape)
        if port.ignored is not None:  # which need be no class
            left_out = generator.random(labels.size) < _IGNORED
            left_out[0] = False
            labels = np.where(left_out.reshape(labels.shape), port.ignored, labels)
        return labels.astype(port.dtype)
    if port.dtype.startswith("int"):
        return generator.integers(0, 2, port.shape).astype(port.dtype)
    if kind == "one-hot":
        classes = generator.integers(0, port.shape[-1], port.shape[:-1])
        return np.asarray(np.eye(port.shape[-1])[classes], port.dtype)
    if kind == "binary":
        return generator.integers(0, 2, port.shape).astype(port.dtype)
    if kind == "positive":
        return generator.uniform(0.1, 1.0, port.shape).astype(port.dtype)
    return generator.standard_normal(port.shape).astype(port.dtype)


def _sequences(port: Port, generator: np.random.Generator) -> NDArray[Any]:
    """Labels of sequences, 0 behind their end: half as many as there could be, so that there is a way to align them."""
    labels = generator.integers(1, max(2, port.classes or 2), port.shape)
    lengths = generator.integers(1, max(2, port.shape[1] // 2 + 1), (len(labels), 1))
    return np.asarray(np.where(np.arange(port.shape[1]) < lengths, labels, 0), port.dtype)


def _target_kind(specification: Specification, port: Port) -> str:
    names = " ".join(_loss_names(specification.model.loss)).lower().replace("_", "")
    if "binary" in names or "hinge" in names:
        return "binary"
    if names == "ctc":
        return "sequence"
    if "categorical" in names:
        return "one-hot" if len(port.shape) > 1 else "binary"
    if any(word in names for word in ("kldivergence", "poisson", "logarithmic", "percentage", "dice", "tversky")):
        return "positive"
    return "number"


def _loss_names(loss: Any) -> list[str]:
    return [
        each if isinstance(each, str) else getattr(each, "__name__", None) or type(each).__name__
        for each in keras.tree.flatten(loss)
        if each is not None
    ]


def _vocabularies(specification: Specification) -> list[int | None]:
    """Returns how many tokens the embedding knows in which an input is looked up, for each such input."""
    layers = [layer for layer in specification.model._flatten_layers() if isinstance(layer, keras.layers.Embedding)]
    sizes = {id(tensor): layer.input_dim for layer in layers for tensor in _direct_inputs(layer)}
    smallest = min((layer.input_dim for layer in layers), default=None)
    return [
        sizes.get(id(tensor), smallest if port.dtype.startswith(("int", "uint")) else None)
        for port, tensor in zip(specification.inputs, _input_tensors(specification), strict=True)
    ]


def _input_tensors(specification: Specification) -> Sequence[Any]:
    """The symbolic inputs; None for each where a model has none, as a subclassed one."""
    given = keras.tree.flatten(getattr(specification.model, "inputs", None) or [])
    return given if len(given) == len(specification.inputs) else [None] * len(specification.inputs)


def _direct_inputs(layer: Any) -> list[Any]:
    return [tensor for node in layer._inbound_nodes for tensor in node.input_tensors]
