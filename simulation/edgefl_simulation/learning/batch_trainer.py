"""A trainer that takes batches as they come, where the data of a client says what its batches are."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgefl.metrics import add_states
from edgefl.wire.messages import Task
from edgefl_device_runtime.tasks import Examples, ModelTrainer, Progress, Training
from edgefl_device_runtime.training import TrainableModel

__all__ = ["BatchTrainer", "pieces"]


class BatchTrainer(ModelTrainer):
    """Trains on batches in their order, each with the rows that it has; without batches, as every device does.

    Args:
        model: just loaded.

    Attributes:
        model: the same.
        batches: rows of each batch of the next task's data, in order; empty: the data is shuffled and cut anew.
    """

    def __init__(self, model: TrainableModel) -> None:
        super().__init__(model)
        self.model = model
        self.batches: Sequence[int] = ()

    def train(self, task: Task, examples: Examples, progress: Progress) -> Training:
        """Trains as the task says, on all batches as often as it has epochs.

        As in TensorFlow Federated, every row counts as often as it was trained on, in the metrics and in the average.
        Where the rows of a batch are mixed (batch normalisation), rows beyond the last full batch of a size are left
        out, as on every device.
        """
        if not self.batches:
            return super().train(task, examples, progress)
        sums: dict[str, NDArray[np.float64]] = {}
        rows = steps = 0
        for number, (start, stop, size) in enumerate(list(pieces(self.batches)) * task.epochs):
            part = slice(start, stop)
            history = self.model.fit(
                _cut(examples.x, part),
                _cut(examples.y, part),
                sample_weight=None if examples.sample_weight is None else examples.sample_weight[part],
                # A piece is an epoch of its own: its random numbers are others than those of the pieces before.
                epochs=number + 1,
                initial_epoch=number,
                batch_size=None if self.manifest.mixes_rows else size,
                shuffle=False,
                verbose=0,
                seed=task.seed,
                learning_rate=task.learning_rate,
                max_steps=task.max_steps - steps if task.max_steps else None,
            )
            add_states(sums, history.states)
            rows, steps = rows + history.num_examples, steps + history.steps
            progress()
            if task.max_steps and steps >= task.max_steps:
                break
        states = {name: tuple(np.ravel(value).tolist()) for name, value in sums.items()}
        return Training(rows, steps, states)


def pieces(batches: Sequence[int]) -> Iterator[tuple[int, int, int]]:
    """Cuts a sequence of batches into pieces, each of batches of one size and at most one smaller one behind them.

    Args:
        batches: rows of each, at least 1.

    Yields:
        The first row of a piece, the one after its last, and the size of its batches.
    """
    start = stop = size = 0
    for rows in batches:
        # After a smaller one, or before a larger one, another piece begins.
        if stop > start and (rows > size or (stop - start) % size):
            yield start, stop, size
            start = stop
        if stop == start:
            size = rows
        stop += rows
    if stop > start:
        yield start, stop, size


def _cut(arrays: Mapping[str, Any], part: slice) -> dict[str, Any]:
    return {name: array[part] for name, array in arrays.items()}
