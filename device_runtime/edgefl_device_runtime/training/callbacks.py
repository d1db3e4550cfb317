"""Hooks into `fit`, named as in Keras."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edgefl_device_runtime.training.model import TrainableModel

__all__ = ["Callback", "overridden"]


class Callback:
    """Base of callbacks; override what you need. An exception ends `fit` and reaches its caller.

    Attributes:
        model: the model being trained. Set ``model.stop_training = True`` to end after the current step.
    """

    model: TrainableModel

    def set_model(self, model: TrainableModel) -> None:
        """Called by `fit` before anything else."""
        self.model = model

    def on_epoch_begin(self, epoch: int) -> None:
        """Called before an epoch."""

    def on_train_batch_end(self, batch: int, logs: Mapping[str, float]) -> None:
        """Called after each step with the step's number within the epoch and its ``loss``."""

    def on_epoch_end(self, epoch: int, logs: Mapping[str, float]) -> None:
        """Called after an epoch, also one that was cut short, with what goes into the history."""


def overridden(callbacks: Sequence[Callback], name: str) -> list[Callable[..., None]]:
    """The callbacks' methods of this name, without those that `Callback` leaves empty."""
    return [getattr(each, name) for each in callbacks if getattr(type(each), name, None) is not getattr(Callback, name)]
