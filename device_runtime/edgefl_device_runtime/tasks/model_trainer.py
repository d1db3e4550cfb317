"""A `TrainableModel` as a task needs it."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import ArrayLike, NDArray

from edgefl.manifest import ModelManifest
from edgefl.version import __version__
from edgefl.wire.messages import Task
from edgefl_device_runtime.tasks.examples import Examples
from edgefl_device_runtime.tasks.trainer import Progress, Training
from edgefl_device_runtime.training import Callback, TrainableModel
from edgefl_device_runtime.training.interpreter import runtime_version

__all__ = ["ModelTrainer"]


class ModelTrainer:
    """Trains a model on the interpreter of this device.

    Args:
        model: just loaded: the values that its local parameters have now are those with which a run begins.

    Attributes:
        latest_loss: the mean over the epoch's rows so far.
    """

    def __init__(self, model: TrainableModel) -> None:
        self._model = model
        self.latest_loss: float | None = None
        self._initial_local = model.local_parameters

    @property
    def manifest(self) -> ModelManifest:
        """The manifest of the model file."""
        return self._model.manifest

    @property
    def num_threads(self) -> int:
        """The interpreter's number of threads."""
        return self._model.num_threads

    @property
    def weights(self) -> NDArray[np.float32]:
        """The shared parameters, a new vector of shape ``[layout.size]``."""
        return self._model.weights

    @property
    def local_parameters(self) -> dict[str, NDArray[np.float32]]:
        """The parameters that are not shared, by name, as new arrays."""
        return self._model.local_parameters

    @property
    def version(self) -> str:
        """Product and version of edgefl and of the interpreter."""
        return f"edgefl/{__version__} {self._model.runtime}/{runtime_version(self._model.runtime)}"

    def start(
        self,
        weights: NDArray[np.float32],
        local: Mapping[str, NDArray[np.float32]],
        correction: NDArray[np.float32] | None,
    ) -> None:
        """Makes the state what it is at the beginning of every task, with a fresh optimizer."""
        self._model.reset_optimizer()
        self._model.weights = weights
        if self._initial_local:
            self._model.local_parameters = {**self._initial_local, **local}
        if self.manifest.has_correction:
            self._model.set_correction(correction)

    def train(self, task: Task, examples: Examples, progress: Progress) -> Training:
        """Trains as the task says; 0 stands for no limit there, and for the model's own batch size."""
        if task.mu > 0:
            self._model.set_reference()
        history = self._model.fit(
            examples.x,
            examples.y,
            sample_weight=examples.sample_weight,
            epochs=task.epochs,
            batch_size=task.batch_size or None,
            seed=task.seed,
            learning_rate=task.learning_rate,
            mu=task.mu,
            max_steps=task.max_steps or None,
            max_seconds=task.max_seconds or None,
            batch_policy=task.batch_policy,  # type: ignore[arg-type]  # `check_supported` has seen to it
            verbose=0,
            callbacks=[_Hook(self, progress)],
        )
        return Training(history.num_examples, history.steps, _plain(history.states))

    def evaluate(self, examples: Examples) -> Training:
        """Evaluates without changing anything."""
        states = self._model.evaluate_states(examples.x, examples.y, examples.sample_weight)
        return Training(examples.rows, 0, _plain(states))

    def gradient(self, task: Task, examples: Examples) -> tuple[Training, NDArray[np.float32]]:
        """Computes the gradient over all examples at the current weights; no step is taken."""
        found = self._model.gradient(examples.x, examples.y, examples.sample_weight, seed=task.seed)
        return Training(found.num_examples, 0, _plain(found.states)), found.vector


class _Hook(Callback):
    """Lets whoever does the task look up after every step."""

    def __init__(self, trainer: ModelTrainer, progress: Progress) -> None:
        self._trainer = trainer
        self._progress = progress

    def on_train_batch_end(self, batch: int, logs: Mapping[str, float] | None = None) -> None:
        self._trainer.latest_loss = logs["loss"] if logs else None
        self._progress()


def _plain(states: Mapping[str, ArrayLike]) -> dict[str, tuple[float, ...]]:
    return {name: tuple(np.asarray(value, np.float64).ravel().tolist()) for name, value in states.items()}
