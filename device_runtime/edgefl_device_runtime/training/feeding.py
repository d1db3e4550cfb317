"""The batches of an epoch as a training step takes them: cut out of arrays, or as a source of batches yields them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from edgefl.errors import DataError
from edgefl.manifest import ModelManifest
from edgefl.wire.vocabulary import BatchPolicy
from edgefl_device_runtime.training.batches import BatchBuffers, batches, mixing, number_of_batches
from edgefl_device_runtime.training.class_weights import row_weights
from edgefl_device_runtime.training.data import Dataset
from edgefl_device_runtime.training.randomness import row_order
from edgefl_device_runtime.training.single_batch import SingleBatch
from edgefl_device_runtime.training.sources import Source, unpacked

__all__ = ["ArrayFeed", "Fed", "Feed", "SourceFeed"]

Fed = tuple[Sequence[NDArray[Any]], NDArray[np.float32], int]
"""Inputs and targets, to be read at once; row weights; and how many rows count."""


class Feed(Protocol):
    """A place that the batches of a `fit` come from.

    Attributes:
        rows: of the data; None where that is not known before.
        steps: of an epoch; None where that is not known before.
    """

    rows: int | None
    steps: int | None

    def epoch(self, number: int, most: int | None) -> Iterator[Fed]:
        """The batches of an epoch; of more than `most` no data is read."""

    @property
    def exhausted(self) -> bool:
        """Whether there will be no more."""


class ArrayFeed:
    """Batches of arrays' rows.

    Args:
        manifest: the model's.
        data: prepared for it.
        batch_size: real rows of a full batch.
        policy: ``PAD``, ``DROP`` or ``REFILL``.
        seed: of the orders; None: the rows' own order.
        steps: of an epoch, None for all. As in Keras the next epoch then goes on where this one ended, and one ends
            early where the data does.
        say: is told what the user should know.
    """

    exhausted = False

    def __init__(
        self,
        manifest: ModelManifest,
        data: Dataset,
        batch_size: int,
        policy: BatchPolicy,
        seed: int | None,
        steps: int | None = None,
        say: Callable[[str], None] = lambda remark: None,
    ) -> None:
        tensors = {spec.name: spec.tensor for spec in manifest.signatures["train"].inputs}
        self._buffers = BatchBuffers(data.columns, tensors, manifest.batch_size, data.sample_weight, divides=True)
        self._cut = (batch_size, manifest.batch_size, policy)
        self._seed, self._say = seed, say
        self._of_pass = number_of_batches(data.rows, batch_size, policy)
        self.rows: int | None = data.rows
        self._steps = self._of_pass if steps is None else steps
        self.steps: int | None = self._steps

    def epoch(self, number: int, most: int | None) -> Iterator[Fed]:
        """The batches of an epoch."""
        rows, steps = self.rows or 0, min(self._steps, self._of_pass)
        epochs_of_pass = -(-self._of_pass // steps)
        passed, part = divmod(number, epochs_of_pass)
        start = part * steps
        stop = min(start + steps, self._of_pass)
        if stop - start < self._steps:
            self._say(_short(self._steps, stop - start))
        if most is not None:
            stop = min(stop, start + most)
        order = np.arange(rows) if self._seed is None else row_order(rows, self._seed, passed)
        arrays, weights = tuple(self._buffers.arrays.values()), self._buffers.weights
        for real in self._buffers.fill(islice(batches(order, *self._cut), start, stop)):
            yield arrays, weights, real


class SourceFeed:
    """Batches as they come, each of which is one step.

    Args:
        manifest: the model's.
        source: of them.
        batch: makes one of the model's size of each.
        policy: ``PAD``, ``DROP`` or ``REFILL``: what becomes of one with fewer rows than the model's.
        seed: of the order of batches that can be had in any order; None: their own.
        steps: of an epoch; None: until they end.
        class_weight: weights of classes, where they were given.
        say: is told what the user should know.
    """

    def __init__(
        self,
        manifest: ModelManifest,
        source: Source,
        batch: SingleBatch,
        policy: BatchPolicy,
        seed: int | None,
        steps: int | None = None,
        class_weight: Mapping[int, float] | None = None,
        say: Callable[[str], None] = lambda remark: None,
    ) -> None:
        self._size, self._source, self._batch = manifest.batch_size, source, batch
        self._mixing = mixing(manifest)
        self._policy, self._seed, self._class_weight, self._say = policy, seed, class_weight, say
        self._wanted = steps
        self._going: Iterator[Any] | None = None
        self._passes = self._fed = 0
        self.exhausted = False
        self.rows: int | None = None
        self.steps: int | None = steps or source.steps

    def epoch(self, number: int, most: int | None) -> Iterator[Fed]:
        """The batches of an epoch."""
        self._source.tell("on_epoch_begin")
        coming = self._begin(number)
        fed = read = 0
        while (self._wanted is None or read < self._wanted) and (most is None or fed < most):
            batch = next(coming, None)
            if batch is None:
                self._going = None
                self.exhausted = self._source.once
                break
            read += 1
            ready = self._ready(batch)
            if ready is not None:
                fed += 1
                self._fed += 1
                yield ready
        if self._wanted is not None and read < self._wanted and (most is None or fed < most):
            self._say(_short(self._wanted, read))
        if not fed and not (self.exhausted and self._fed):
            raise DataError(
                f"The {self._source.kind} has no batch in epoch {number + 1} that can be trained on.",
                hint="Have it yield at least one batch an epoch"
                + (f", of {self._size} rows." if self._policy is BatchPolicy.DROP else "."),
            )
        self._source.tell("on_epoch_end")

    def _begin(self, number: int) -> Iterator[Any]:
        if self._wanted is None or self._going is None:
            self._going = self._source.passes(number if self._wanted is None else self._passes, self._seed)
            self._passes += 1
        return self._going

    def _ready(self, batch: Any) -> Fed | None:
        """A batch of the model's size, or None for one that is left out."""
        x, y, sample_weight = unpacked(self._source, batch)
        if self._class_weight is None and self._policy is BatchPolicy.PAD and isinstance(x, np.ndarray):
            rows = len(x) if x.ndim else 0
            self._check(rows)
            return (*self._batch.fill(x, y, sample_weight), rows)
        if self._class_weight is not None:
            sample_weight = row_weights(y, self._class_weight, sample_weight)
        data = self._batch.prepare(x, y, sample_weight)
        self._check(data.rows)
        if data.rows == self._size or self._policy is BatchPolicy.PAD:
            return (*self._batch.fit_size(data), data.rows)
        why = f"{self._mixing}, so that it cannot be padded"
        if self._policy is BatchPolicy.DROP:
            self._say(f"Batches of fewer than {self._size} rows are left out: {why}.")
            return None
        self._say(f"Batches of fewer than {self._size} rows are filled up with their own rows: {why}.")
        return (*self._batch.fit_size(data, refill=True), self._size)

    def _check(self, rows: int) -> None:
        if rows > self._size:
            raise DataError(
                f"The {self._source.kind} yields a batch of {rows} rows; this model file takes at most {self._size} in "
                "a step.",
                hint=f"Make its batches of at most {self._size}, or convert the model with `batch_size={rows}`.",
            )


def _short(wanted: int, got: int) -> str:
    return (
        f"The data ran out after {got} of the {wanted} steps of an epoch; the epoch ended there, as in Keras. Give "
        "more data, or fewer steps_per_epoch."
    )
