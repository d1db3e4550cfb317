"""Made-up data that fits a model: verification compares arithmetic, so what the data means does not matter."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from edgefl_converters.training_step.ports import Port
from edgefl_converters.training_step.specification import Specification

__all__ = ["Batch", "draw_batches", "federated_batches"]


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
    specification: Specification, count: int, generator: np.random.Generator, *, whole: bool = False
) -> list[Batch]:
    """Draws batches for a model.

    Numbers are normal, or 0 and 1 where they are to be ``whole``; tokens are drawn from the vocabulary, labels from the
    classes, and other targets from what their loss is defined on.

    Args:
        specification: of the model.
        count: how many.
        generator: where the numbers come from.
        whole: for models of which an input is labels, whatever type it has.
    """
    vocabularies = [2 if size is None and whole else size for size in _vocabularies(specification)]
    kinds = [_target_kind(specification, port) for port in specification.targets]
    return [
        Batch(
            tuple(_input(port, size, generator) for port, size in zip(specification.inputs, vocabularies, strict=True)),
            tuple(_target(port, kind, generator) for port, kind in zip(specification.targets, kinds, strict=True)),
            seed=int(generator.integers(1, 2**31)),
        )
        for _ in range(count)
    ]


def federated_batches(batches: Sequence[Batch]) -> Sequence[Batch]:
    """Those of the steps with a proximal term and a correction; the first one is taken without."""
    return batches[:3]


def _input(port: Port, vocabulary: int | None, generator: np.random.Generator) -> NDArray[Any]:
    if vocabulary is not None:
        return generator.integers(0, vocabulary, port.shape).astype(port.dtype)
    if port.dtype.startswith(("int", "uint", "bool")):
        return generator.integers(0, 2, port.shape).astype(port.dtype)
    return generator.standard_normal(port.shape).astype(port.dtype)


def _target(port: Port, kind: str, generator: np.random.Generator) -> NDArray[Any]:
    if kind == "sequence":
        return _sequences(port, generator)
    if port.classes is not None:
        return generator.integers(0, port.classes, port.shape).astype(port.dtype)
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
    given = keras.tree.flatten(getattr(specification.model, "inputs", None) or [])
    tensors: Sequence[Any] = given if len(given) == len(specification.inputs) else [None] * len(specification.inputs)
    return [
        sizes.get(id(tensor), smallest if port.dtype.startswith(("int", "uint")) else None)
        for port, tensor in zip(specification.inputs, tensors, strict=True)
    ]


def _direct_inputs(layer: Any) -> list[Any]:
    return [tensor for node in layer._inbound_nodes for tensor in node.input_tensors]
