"""The batch sizes of a model file, each with what trains on batches of it."""

from __future__ import annotations

from typing import NamedTuple

from edgefl.manifest import ModelManifest
from edgefl_device_runtime.training.interpreter import Interpreter
from edgefl_device_runtime.training.single_batch import SingleBatch
from edgefl_device_runtime.training.train_signature import TrainSignature

__all__ = ["Sized", "Sizes"]


class Sized(NamedTuple):
    """The file as one of one of its batch sizes.

    Attributes:
        manifest: as `ModelManifest.of_batch_size` gives it.
        train: takes steps of that size.
        batch: makes batches of that size.
    """

    manifest: ModelManifest
    train: TrainSignature
    batch: SingleBatch


class Sizes:
    """All sizes of a file; what is needed for a smaller one is made when it is first asked for.

    Args:
        interpreter: the loaded model.
        manifest: its manifest.
    """

    def __init__(self, interpreter: Interpreter, manifest: ModelManifest) -> None:
        self._interpreter, self._manifest = interpreter, manifest
        self._latest = Sized(manifest, TrainSignature(interpreter, manifest), SingleBatch(manifest))
        self._made = {manifest.batch_size: self._latest}

    def of_rows(self, rows: int) -> Sized:
        """The smallest size that holds so many rows, the largest where none does; a rate that is set is set there."""
        size = self._manifest.batch_size_for(rows)
        if size not in self._made:
            view = self._manifest.of_batch_size(size)
            train = TrainSignature(self._interpreter, view, f"train_{size}")
            self._made[size] = Sized(view, train, SingleBatch(view))
        self._latest = self._made[size]
        return self._latest

    def set_learning_rate(self, rate: float) -> None:
        """Sets the learning rate of the steps that are taken now."""
        self._latest.train.set_learning_rate(rate)
