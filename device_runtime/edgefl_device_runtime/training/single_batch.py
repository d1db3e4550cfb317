"""The data of one `train_on_batch`, without a copy where the user's arrays are as they must be."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgefl.errors import DataError
from edgefl.manifest import ModelManifest
from edgefl_device_runtime.training.batches import BatchBuffers
from edgefl_device_runtime.training.class_weights import row_weights
from edgefl_device_runtime.training.data import Dataset, Intake

__all__ = ["SingleBatch"]


class SingleBatch:
    """Checks a batch and makes it one of the model's size.

    Args:
        manifest: the model's.
    """

    def __init__(self, manifest: ModelManifest) -> None:
        self._size, self._mixes_rows = manifest.batch_size, manifest.mixes_rows
        self._intake = Intake(manifest, "train")
        self._tensors = {spec.name: spec.tensor for spec in manifest.signatures["train"].inputs}
        self._ones = np.ones(manifest.batch_size, np.float32)

    def fill(
        self, x: Any, y: Any, sample_weight: Any = None, class_weight: Mapping[int, float] | None = None
    ) -> tuple[Sequence[NDArray[Any]], NDArray[np.float32]]:
        """Returns what `TrainSignature.step` takes.

        Returns:
            Inputs and targets, which may be the user's own arrays and are to be read at once, and row weights.

        Raises:
            DataError: the data does not fit the model, or has too many rows, or too few where they are mixed.
        """
        size = self._size
        if class_weight is not None:
            sample_weight = row_weights(y, class_weight, sample_weight)
        if sample_weight is None and (ready := self._intake.take_batch(x, y, size)) is not None:
            return ready, self._ones
        return self.fit_size(self._intake.prepare(x, y, sample_weight))

    def prepare(self, x: Any, y: Any, sample_weight: Any) -> Dataset:
        """Checks a batch of any number of rows."""
        return self._intake.prepare(x, y, sample_weight)

    def fit_size(self, data: Dataset, *, refill: bool = False) -> tuple[Sequence[NDArray[Any]], NDArray[np.float32]]:
        """Makes checked rows a batch of the model's size; see `fill`.

        Args:
            data: at most so many.
            refill: fill up with the same rows, which then count again.
        """
        size = self._size
        if data.rows > size or (self._mixes_rows and data.rows < size and not refill):
            limit = "exactly" if self._mixes_rows else "at most"
            raise DataError(
                f"A batch has {limit} {size} rows with this model file, got {data.rows}.",
                hint="`fit` cuts data of any length into batches.",
            )
        # Not dtype: on 32-bit ARM C ints and longs are equal to numpy, and different to the interpreter.
        ready_arrays = [
            column.data
            for column in data.columns
            if isinstance(column.data, np.ndarray) and column.data.dtype.num == column.dtype.num
        ]
        if data.rows == size and data.sample_weight is None and len(ready_arrays) == len(data.columns):
            return ready_arrays, self._ones
        buffers = BatchBuffers(data.columns, self._tensors, size, data.sample_weight, divides=True)
        next(buffers.fill(iter([(np.resize(np.arange(data.rows), size), size if refill else data.rows)])))
        return list(buffers.arrays.values()), buffers.weights
