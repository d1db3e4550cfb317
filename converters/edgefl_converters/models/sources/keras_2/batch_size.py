"""Numbers made of a tensor's shape, whose batch size is not known before a model runs.

Keras 2 wrote ``tf.shape(x)`` and what follows it as layers. Such numbers are computed here for two sizes of a batch:
what is the same for both is a constant.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from edgefl.errors import ModelError
from edgefl_converters.models.sources.keras_2.tensorflow_operation import TensorFlowOperation

__all__ = ["OfBatch", "computed", "shape_of"]

_SIZES = (1009, 1013)


class OfBatch:
    """A number, or an array of them, that depends on the batch size.

    Args:
        values: for each of the two sizes.
        source: a tensor of such a batch.
    """

    def __init__(self, values: tuple[Any, Any], source: Any) -> None:
        self.values = values
        self.source = source

    def with_unknown(self) -> list[int]:
        """As the shape of a reshape, with -1 for the dimension that depends on the batch size."""
        first, second = (np.ravel(each).tolist() for each in self.values)
        return [one if one == other else -1 for one, other in zip(first, second, strict=True)]

    def as_tensors(self) -> Any:
        """The number, or a list of numbers, with tensors for those that depend on the batch size.

        Raises:
            ModelError: one is not a multiple of the batch size.
        """
        first, second = (np.asarray(each) for each in self.values)
        if first.ndim == 0:
            return self._number(first.item(), second.item())
        if first.ndim == 1:
            return [self._number(one, other) for one, other in zip(first.tolist(), second.tolist(), strict=True)]
        return self._unknown()

    def _number(self, one: Any, other: Any) -> Any:
        if one == other:
            return one
        if one * _SIZES[1] != other * _SIZES[0] or one % _SIZES[0]:
            return self._unknown()
        whole = TensorFlowOperation("shape", TensorFlowOperation.place(0), {})([self.source])
        return whole[0] if one == _SIZES[0] else keras.ops.multiply(whole[0], one // _SIZES[0])

    def _unknown(self) -> Any:
        raise ModelError(
            "The model computes with a number that depends on the size of the batch in a way that is not followed.",
            hint="Give module:function that builds the model without tf.shape, calls load_weights with this file, and "
            "returns it.",
        )


def shape_of(tensor: Any) -> Any:
    """The shape of a tensor, as numbers."""
    values = tuple(np.array([size if each is None else each for each in tensor.shape], np.int32) for size in _SIZES)
    return _settled(values, tensor)


def computed(function: Callable[..., Any], first: Any, arguments: dict[str, Any]) -> list[Any] | None:
    """Calls a function of TensorFlow with numbers: a result is a constant where it is the same for any batch size.

    Returns:
        A list of its results; None where one has more or fewer elements for another size of the batch.
    """
    leaves = [each for each in keras.tree.flatten((first, arguments)) if isinstance(each, OfBatch)]
    results = []
    for which in range(len(_SIZES)):
        given, named = keras.tree.map_structure(
            lambda each, which=which: each.values[which] if isinstance(each, OfBatch) else each, (first, arguments)
        )
        results.append(tf.nest.map_structure(np.asarray, function(given, **named)))
    pairs = list(zip(*map(tf.nest.flatten, results), strict=True))
    if any(one.shape != other.shape for one, other in pairs):
        return None
    return [_settled(pair, leaves[0].source if leaves else None) for pair in pairs]


def _settled(values: Any, source: Any) -> Any:
    if np.array_equal(*values):
        return values[0].item() if values[0].ndim == 0 else values[0].tolist()
    return OfBatch(tuple(values), source)
