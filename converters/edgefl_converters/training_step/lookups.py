"""Notices what is looked up in Embedding layers while a model is traced."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import keras
import tensorflow as tf

__all__ = ["Lookup", "lookups"]


@dataclass(frozen=True)
class Lookup:
    """One call of an Embedding.

    Attributes:
        indices: what it was called with, in the graph that was being traced.
        size: how many entries it has, its ``input_dim``.
    """

    indices: tf.Tensor
    size: int


@contextlib.contextmanager
def lookups() -> Iterator[list[Lookup]]:
    """Gives a list to which every call of an Embedding in a graph is added."""
    found: list[Lookup] = []
    original = keras.layers.Embedding.call

    def call(self: Any, inputs: Any) -> Any:
        if isinstance(inputs, tf.Tensor) and not hasattr(inputs, "numpy"):
            found.append(Lookup(inputs, int(self.input_dim)))
        return original(self, inputs)

    keras.layers.Embedding.call = call
    try:
        yield found
    finally:
        keras.layers.Embedding.call = original
