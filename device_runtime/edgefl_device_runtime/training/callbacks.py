"""Hooks into `fit`, named as in Keras."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from edgefl.manifest import ModelManifest
from edgefl_device_runtime.training.keras_callbacks import check_callback, choose_direction
from edgefl_device_runtime.training.optimizer import Optimizer

__all__ = ["Callback", "Callbacks", "ModelInTraining"]

Logs = Mapping[str, float]


class ModelInTraining(Protocol):
    """A model as a callback may use it while it is being trained; `TrainableModel` says what each method does.

    Attributes:
        manifest: what the file says about itself.
        stop_training: set it to True to end after the current step.
    """

    manifest: ModelManifest
    stop_training: bool

    @property
    def optimizer(self) -> Optimizer:
        """The optimizer, whose learning rate can be set."""

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

    def save_weights(self, filepath: str | os.PathLike[str], overwrite: bool = True) -> None:
        """Writes them to a `.npz` file."""

    def load_weights(self, filepath: str | os.PathLike[str]) -> None:
        """Reads them from one."""

    def evaluate(self, x: Any, y: Any = None) -> Any:
        """Computes loss and metrics over any number of rows."""

    def predict(self, x: Any) -> Any:
        """Computes the model's outputs for any number of rows."""


class Callback:
    """Base of callbacks, with the methods of Keras's; override what you need. An exception reaches the caller.

    Attributes:
        model: the model being trained. Set ``model.stop_training = True`` to end after the current step.
        params: ``epochs``, ``steps`` of an epoch where they are known, and ``verbose``.
    """

    model: ModelInTraining
    params: Mapping[str, Any]

    def set_params(self, params: Mapping[str, Any]) -> None:
        """Called before anything else."""
        self.params = params

    def set_model(self, model: ModelInTraining) -> None:
        """Called before anything else."""
        self.model = model

    def on_train_begin(self, logs: Logs | None = None) -> None:
        """Called by `fit` before the first epoch."""

    def on_train_end(self, logs: Logs | None = None) -> None:
        """Called by `fit` at its end with the last epoch's values; not after an exception."""

    def on_epoch_begin(self, epoch: int, logs: Logs | None = None) -> None:
        """Called before an epoch."""

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        """Called after an epoch, also one that was cut short, with a dict; what is added goes into the history."""

    def on_train_batch_begin(self, batch: int, logs: Logs | None = None) -> None:
        """Called before each step with its number within the epoch."""

    def on_train_batch_end(self, batch: int, logs: Logs | None = None) -> None:
        """Called after each step, with loss and metrics of the epoch up to here."""

    def on_test_batch_begin(self, batch: int, logs: Logs | None = None) -> None:
        """Called before each batch of an evaluation."""

    def on_test_batch_end(self, batch: int, logs: Logs | None = None) -> None:
        """Called after it, with loss and metrics up to here."""

    def on_predict_batch_begin(self, batch: int, logs: Logs | None = None) -> None:
        """Called before each batch of `predict`."""

    def on_predict_batch_end(self, batch: int, logs: Logs | None = None) -> None:
        """Called after it."""

    def on_test_begin(self, logs: Logs | None = None) -> None:
        """Called before an evaluation, also one of validation data."""

    def on_test_end(self, logs: Logs | None = None) -> None:
        """Called after it, with its values."""

    def on_predict_begin(self, logs: Logs | None = None) -> None:
        """Called by `predict` before the first batch."""

    def on_predict_end(self, logs: Logs | None = None) -> None:
        """Called by `predict` after the last one."""


class Callbacks:
    """The callbacks of one call, told in their order.

    Args:
        callbacks: one, several or none; also Keras's own, of which those that cannot work here are refused.
        model: the model.
        params: see `Callback`.
        last: edgefl's own, told after all others.

    Raises:
        InvalidSettingError: one of them cannot work with a model file, or is no callback.
    """

    def __init__(
        self,
        callbacks: Iterable[Any] | Any | None,
        model: ModelInTraining,
        params: Mapping[str, Any],
        last: Callback | None = None,
    ) -> None:
        several = callbacks if isinstance(callbacks, (list, tuple)) else () if callbacks is None else (callbacks,)
        self._all = [*several, *([] if last is None else [last])]
        for each in self._all:
            check_callback(each)
        for each in self._all:
            choose_direction(each, model.manifest.metrics)
            each.set_model(model)
            if hasattr(each, "set_params"):
                each.set_params(dict(params))

    def hooks(self, name: str) -> list[Callable[..., None]]:
        """The methods of this name, without those that `Callback` leaves empty."""
        own = getattr(Callback, name)
        return [getattr(each, name) for each in self._all if getattr(type(each), name, own) is not own]

    def tell(self, name: str, *arguments: Any) -> None:
        """Calls all methods of a name."""
        for hook in self.hooks(name):
            hook(*arguments)
