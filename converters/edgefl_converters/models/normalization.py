"""Gives a model's Normalization layers the mean and variance of a fleet's data, which no device sends as such.

They are constants of the graph, as after Keras's own ``Normalization.adapt`` on the pooled data.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edgefl.errors import DataError, InvalidSettingError, storage_error
from edgefl.summaries import features_of

if TYPE_CHECKING:
    import keras

__all__ = ["IDENTITY", "Statistics", "normalize", "read_statistics", "waiting"]

IDENTITY = "identity"
"""Given in place of a file: mean 0 and variance 1, in a file with which devices sum up their data."""

Numbers = NDArray[np.float64]
_WHENCE = "`edgefl run statistics` writes it, of a run of the kind statistics."


@dataclass(frozen=True)
class Statistics:
    """Mean and variance of every input of a model, in its order.

    Attributes:
        shapes: of a row.
        means: float64 ``[features]`` each: of every number of a row, or of each place of the last axis.
        variances: float64 ``[features]`` each.
    """

    shapes: tuple[tuple[int, ...], ...]
    means: tuple[Numbers, ...]
    variances: tuple[Numbers, ...]

    def over(self, index: int, kept: tuple[int, ...]) -> tuple[Numbers, Numbers]:
        """Mean and variance of an input over all of its axes but some.

        Args:
            index: of the input.
            kept: axes of a row, from 0.

        Returns:
            Both in the shape of these axes.

        Raises:
            DataError: the statistics are of the last axis only, and another is to be kept.
        """
        shape, mean, variance = self.shapes[index], self.means[index], self.variances[index]
        if mean.size == math.prod(shape):
            mean, variance = mean.reshape(shape), variance.reshape(shape)
        elif kept and (kept != (len(shape) - 1,) or mean.size != shape[-1]):
            raise DataError(
                f"The statistics of rows of shape {shape} are {mean.size} numbers, which do not tell their axes apart.",
                hint="Give the Normalization layer axis=-1, or axis=None.",
            )
        else:
            kept = tuple(0 for _ in kept)
        away = tuple(axis for axis in range(mean.ndim) if axis not in kept)
        return mean.mean(away), variance.mean(away) + mean.var(away)


def read_statistics(path: str | os.PathLike[str]) -> Statistics:
    """Reads what ``edgefl run statistics`` writes.

    Raises:
        StorageError: the file cannot be read.
        DataError: it is something else.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise storage_error(error, "read", Path(path)) from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path} holds no statistics of a fleet's data.", hint=_WHENCE) from error
    try:
        document = json.loads(text)
        arrays = [document["arrays"][name] for name in document["inputs"]]
        shapes = tuple(tuple(map(int, each["shape"])) for each in arrays)
        means, variances = (
            tuple(_numbers(each[name], shape) for each, shape in zip(arrays, shapes, strict=True))
            for name in ("mean", "variance")
        )
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise DataError(f"{path} holds no statistics of a fleet's data.", hint=_WHENCE) from error
    return Statistics(shapes, means, variances)


def normalize(model: keras.Model, statistics: Statistics) -> list[str]:
    """Sets every Normalization layer that takes an input of the model as it is, in place.

    Returns:
        The names of these layers.

    Raises:
        InvalidSettingError: there is none, or the statistics are of other inputs.
    """
    inputs = list(getattr(model, "inputs", None) or [])
    shapes = tuple(tuple(each.shape[1:]) for each in inputs)
    if shapes != statistics.shapes:
        raise InvalidSettingError(
            f"The statistics are of inputs of shape {_listed(statistics.shapes)}, the model takes {_listed(shapes)}.",
            hint="Ask devices for statistics with a file of this very model.",
        )
    for layer, index in (found := _found(model)):
        mean, variance = statistics.over(index, tuple(axis - 1 for axis in layer._keep_axis))
        layer.adapt_mean.assign(mean)
        layer.adapt_variance.assign(variance)
        layer.finalize_state()
    return [layer.name for layer, _ in found]


def waiting(model: keras.Model) -> list[str]:
    """Names the layers that `normalize` would set.

    Raises:
        InvalidSettingError: there is none.
    """
    return [layer.name for layer, _ in _found(model)]


def _found(model: keras.Model) -> list[tuple[Any, int]]:
    inputs = list(getattr(model, "inputs", None) or [])
    found = list(_normalizations(model, {id(each): index for index, each in enumerate(inputs)}))
    if not found:
        raise InvalidSettingError(
            "The model has no Normalization layer that takes an input as it is and waits for its mean and variance.",
            hint="Put keras.layers.Normalization() behind the input, without mean and variance.",
        )
    return found


def _normalizations(model: keras.Model, inputs: Mapping[int, int]) -> Any:
    import keras

    for layer in model.layers:
        if not isinstance(layer, keras.layers.Normalization) or layer.input_mean is not None:
            continue
        taken = [tensor for node in layer._inbound_nodes for tensor in node.input_tensors]
        index = next((inputs[id(tensor)] for tensor in taken if id(tensor) in inputs), None)
        if index is None:
            continue
        if 0 in layer._keep_axis:
            raise InvalidSettingError(f"The layer {layer.name} keeps axis 0, the rows, of which a fleet has no number.")
        yield layer, index


def _numbers(values: Any, shape: tuple[int, ...]) -> Numbers:
    numbers = np.asarray(values, np.float64)
    if numbers.shape != (features_of(shape),) or not np.isfinite(numbers).all():
        raise ValueError("numbers of another shape")
    return numbers


def _listed(shapes: tuple[tuple[Any, ...], ...]) -> str:
    return ", ".join(map(str, shapes)) or "none"
