"""Holds what stands for things that are no tensors while a graph is walked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import tensorflow as tf

__all__ = ["ComplexValue", "Handle", "OptionalValues"]


@dataclass(frozen=True)
class ComplexValue:
    """A complex tensor, of which TFLite's ops want to know nothing.

    Attributes:
        real: its real part.
        imag: its imaginary part, of the same shape.
    """

    real: tf.Tensor
    imag: tf.Tensor


class Handle:
    """A traced variable; ``key`` is the same for every capture of it."""

    def __init__(self, key: Any) -> None:
        self.key = key


class OptionalValues:
    """Holds what one branch of a conditional keeps for its gradient, and the other does not have."""

    def __init__(self, values: Sequence[tf.Tensor]) -> None:
        self.values = list(values)
