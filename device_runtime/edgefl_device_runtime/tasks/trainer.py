"""The protocol of whatever trains for a task: an interpreter, or a test's or a simulation's stand-in for one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from edgefl.manifest import ModelManifest
from edgefl.wire.messages import Task
from edgefl_device_runtime.tasks.examples import Examples

__all__ = ["Progress", "Trainer", "Training"]

Vector = NDArray[np.float32]
Progress = Callable[[], None]
"""Called after every step; may raise to end the task."""


@dataclass(frozen=True)
class Training:
    """The work that a trainer did.

    Attributes:
        num_examples: local rows; of training that was stopped early at most steps × batch size.
        steps: optimizer steps.
        states: additive states of loss and metrics: of the last epoch, or of the evaluation.
    """

    num_examples: int
    steps: int
    states: Mapping[str, tuple[float, ...]]


class Trainer(Protocol):
    """A loaded model, as a task needs it.

    Attributes:
        latest_loss: lately; None when nobody knows.
    """

    latest_loss: float | None

    @property
    def manifest(self) -> ModelManifest:
        """The manifest of the model file."""

    @property
    def weights(self) -> Vector:
        """The shared parameters, a new vector of shape ``[layout.size]``."""

    @property
    def version(self) -> str:
        """Product and version, for the outcome."""

    @property
    def local_parameters(self) -> dict[str, NDArray[np.float32]]:
        """The parameters that are not shared, by name, as new arrays."""

    def start(self, weights: Vector, local: Mapping[str, NDArray[np.float32]], correction: Vector | None) -> None:
        """Makes the state what it is at the beginning of every task.

        Args:
            weights: the shared parameters.
            local: those that are not; what is missing gets the file's initial value.
            correction: is added to the gradient in every step; None: nothing is.
        """

    def train(self, task: Task, examples: Examples, progress: Progress) -> Training:
        """Trains as the task says."""

    def evaluate(self, examples: Examples) -> Training:
        """Evaluates without changing anything."""

    def gradient(self, task: Task, examples: Examples) -> tuple[Training, Vector]:
        """Computes the gradient over all examples at the current weights, float32 ``[layout.weight_size]``."""
