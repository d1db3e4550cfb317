"""Makes the constants of the graph that is emitted, and keeps what is large from the TFLite converter.

It copies each constant of each signature some fifty times. So it is given a stand-in for a large one, an op that it
neither computes nor copies; the numbers are put into the file that it makes: `flatbuffer.placeholders`.
"""

from __future__ import annotations

import hashlib
import math
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray
from tensorflow.python.framework import ops

from edgefl_converters.flatbuffer.placeholders import SEED

__all__ = ["LARGE", "Constants"]

LARGE = 1 << 16
"""Bytes of a constant from which a placeholder stands for it. The converter may fold a smaller one into whatever is
around it, which costs it little."""


class Constants:
    """The constants of a file's signatures, each large one once, however many signatures and lowerings make it.

    Args:
        least: bytes of a constant that is large; by default none is.

    Attributes:
        large: what the placeholders stand for, by their numbers.
    """

    def __init__(self, least: float = math.inf) -> None:
        self._least = least
        self.large: list[NDArray[np.float32]] = []
        self._numbers: dict[Any, int] = {}

    def tensor(self, value: NDArray[Any], key: Any = None) -> tf.Tensor:
        """A tensor of the present graph with a value.

        Args:
            value: kept, not copied, where it is large.
            key: tells it from all others; without one it is told by its bytes.
        """
        if value.nbytes < self._least or value.dtype != np.float32:
            return tf.constant(value)
        key = _digest(value) if key is None else key
        if key not in self._numbers:
            self._numbers[key] = len(self.large)
            self.large.append(value)
        return self._placeholder(self._numbers[key])

    def value(self, tensor: tf.Tensor) -> NDArray[Any] | None:
        """The value of a constant, large or not; None for any other tensor."""
        if tensor.op.type == "Const":
            value: NDArray[Any] = tf.make_ndarray(tensor.op.get_attr("value"))
            return value
        return self.large_value(tensor)

    def large_value(self, tensor: tf.Tensor) -> NDArray[np.float32] | None:
        """The value of a large constant; None for any other tensor."""
        number = _number(tensor)
        return None if number is None else self.large[number]

    def here(self, tensor: tf.Tensor) -> tf.Tensor:
        """The same tensor; in the body of a branch or loop a placeholder of its own, which it need not be given."""
        number = _number(tensor)
        return tensor if number is None or tensor.graph is ops.get_default_graph() else self._placeholder(number)

    def _placeholder(self, number: int) -> tf.Tensor:
        shape = list(self.large[number].shape)
        # Random numbers from a seed: no two of them are taken for equal, and none is computed at conversion.
        return tf.raw_ops.RandomUniform(shape=shape, dtype=tf.float32, seed=SEED, seed2=number + 1)


def _number(tensor: tf.Tensor) -> int | None:
    op = tensor.op
    if op.type != "RandomUniform" or op.get_attr("seed") != SEED:
        return None
    return int(op.get_attr("seed2")) - 1


def _digest(value: NDArray[Any]) -> Any:
    return value.shape, hashlib.sha256(np.ascontiguousarray(value).data).digest()
