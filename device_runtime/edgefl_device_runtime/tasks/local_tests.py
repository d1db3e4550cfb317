"""Tests weights on examples that the device does not train on: the received ones before, and its own ones afterwards.

How much the second are better is what local training brings to this device (Wang et al. 2019, Federated Evaluation of
On-device Personalization, arXiv 1910.10252).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from numpy.typing import NDArray

from edgefl.metrics import AFTER, BEFORE
from edgefl.wire.messages import Task, TaskKind
from edgefl_device_runtime.tasks.examples import Examples
from edgefl_device_runtime.training.file_rows import FileRows

__all__ = ["parted", "tested"]

_States = Mapping[str, Sequence[float]]


def parted(task: Task, examples: Examples, minimum: int) -> tuple[Examples, Examples | None]:
    """Divides the local examples into those that are trained on and those that are kept for tests.

    The latter are the last ones, as many as the whole part of the task's share says, as Keras's ``validation_split``
    and simulations have it: rows in an order that means something should be shuffled once, when they are written.

    Args:
        task: with its share.
        examples: of this device.
        minimum: with fewer examples for tests there are none: the figures would be of single ones.

    Returns:
        Both; the first is all, and the second None, where there are no tests.
    """
    count = int(task.local_test * examples.rows) if task.kind == TaskKind.TRAIN else 0
    if count < max(1, minimum):
        return examples, None
    at = examples.rows - count
    return _part(examples, 0, at), _part(examples, at, examples.rows)


def tested(training: _States, before: _States, after: _States) -> dict[str, tuple[float, ...]]:
    """Names the states of a training and of the tests around it."""
    named = {"": training, BEFORE: before, AFTER: after}
    return {prefix + name: tuple(values) for prefix, states in named.items() for name, values in states.items()}


def _part(examples: Examples, start: int, stop: int) -> Examples:
    def of(array: NDArray[Any] | FileRows) -> NDArray[Any] | FileRows:
        return array.part(start, stop) if isinstance(array, FileRows) else array[start:stop]

    weight = examples.sample_weight
    return Examples(
        {name: of(array) for name, array in examples.x.items()},
        {name: of(array) for name, array in examples.y.items()},
        None if weight is None else of(weight),
    )
