"""Hooks into `fit`, named as in Keras."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from edgefl.manifest import ModelManifest

__all__ = ["Callback", "ModelInTraining", "overridden"]


class ModelInTraining(Protocol):
    """A model as a callback may use it while it is being trained; `TrainableModel` says what each method does.

    Attributes:
        manifest: what the file says about itself.
        stop_training: set it to True to end after the current step.
    """

    manifest: ModelManifest
    stop_training: bool

    @property
    def weights(self) -> NDArray[np.float32]:
        """The shared parameters as one new flat vector."""

    @property
    def local_parameters(self) -> dict[str, NDArray[np.float32]]:
        """The parameters that never leave the device, by name."""

    def delta(self, since: NDArray[np.float32]) -> NDArray[np.float32]:
        """Returns the shared parameters now minus earlier ones."""

    def get_weights(self) -> list[NDArray[np.float32]]:
        """Returns weights and statistics in the order of the Keras model's variables."""

    def set_weights(self, weights: Sequence[ArrayLike] | Mapping[str, ArrayLike]) -> None:
        """Sets all of them."""

    def get_state(self) -> dict[str, NDArray[Any]]:
        """Returns everything that training changes, by name."""

    def set_state(self, state: Mapping[str, ArrayLike]) -> None:
        """Restores it."""

    def evaluate(self, x: Any, y: Any = None, sample_weight: ArrayLike | None = None) -> dict[str, float]:
        """Computes loss and metrics over any number of rows."""

    def predict(self, x: Any) -> Any:
        """Computes the model's outputs for any number of rows."""


class Callback:
    """Base of callbacks; override what you need. An exception ends `fit` and reaches its caller.

    Attributes:
        model: the model being trained. Set ``model.stop_training = True`` to end after the current step.
    """

    model: ModelInTraining

    def set_model(self, model: ModelInTraining) -> None:
        """Called by `fit` before anything else."""
        self.model = model

    def on_epoch_begin(self, epoch: int) -> None:
        """Called before an epoch."""

    def on_train_batch_end(self, batch: int, logs: Mapping[str, float]) -> None:
        """Called after each step with the step's number within the epoch and its ``loss``."""

    def on_epoch_end(self, epoch: int, logs: Mapping[str, float]) -> None:
        """Called after an epoch, also one that was cut short, with what goes into the history."""


def overridden(callbacks: Sequence[Callback], name: str) -> list[Callable[..., None]]:
    """Returns the callbacks' methods of this name, without those that `Callback` leaves empty."""
    return [getattr(each, name) for each in callbacks if getattr(type(each), name, None) is not getattr(Callback, name)]
