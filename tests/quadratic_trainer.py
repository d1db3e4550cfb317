"""A trainer without an interpreter whose loss is a parabola: what comes out of a task can be worked out by hand.

The loss is the mean over the rows of ``½ · |w - x|²``, so its gradient is ``w - mean(x)``. Its vectors are added and
multiplied element by element in float32, in one order: the bits are those of every platform.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgefl.layout import Parameter
from edgefl.manifest import ModelManifest, Signature, Target, TensorSpec
from edgefl.wire.messages import Task
from edgefl_device_runtime.tasks import Examples, Training

__all__ = ["QuadraticTrainer", "quadratic_manifest"]

ELEMENTS = 4
LOCAL = Parameter("own", "m/own", (2,), shared=False)
STATISTIC = Parameter("mean", "m/mean", (1,), "statistic")


def quadratic_manifest(*further: Parameter, algorithms: bool = True, **changes: Any) -> ModelManifest:
    """A model of 4 weights and what else is named; with `algorithms`, for all of them."""
    parameters = (Parameter("w", "m/w", (ELEMENTS,)), *further)
    inputs = [TensorSpec(name, name, (8, *shape), "float32") for name, shape in (("x", (ELEMENTS,)), ("y", ()))]
    mu = [TensorSpec("mu", "mu", (1,), "float32")] if algorithms else []
    train = Signature(inputs=(*inputs, *mu))
    signatures = {"train": train, "evaluate": train}
    if algorithms:
        signatures |= {"set_reference": Signature(), "set_correction": Signature(), "gradient": train}
    settings: dict[str, Any] = {
        "parameters": parameters,
        "signatures": signatures,
        "inputs": ("x",),
        "outputs": ("z",),
        "targets": (Target("y", "z"),),
        "batch_size": 8,
        "learning_rate": 0.25,
        "optimizer": {"class_name": "SGD", "config": {"learning_rate": 0.25}},
        "graph_hash": "9" * 64,
        **changes,
    }
    manifest = ModelManifest(**settings)
    return ModelManifest(**{**settings, "layout_hash": manifest.layout.hash})


class QuadraticTrainer:
    """One step an epoch over all rows, with plain SGD.

    Args:
        manifest: see `quadratic_manifest`.

    Attributes:
        during_step: called in the middle of every step.
        trained: how often it was asked to train.
        correction: the one of the last task.
    """

    version = "quadratic/1"

    def __init__(self, manifest: ModelManifest | None = None) -> None:
        self.manifest = manifest or quadratic_manifest()
        self.weights = np.zeros(self.manifest.layout.size, np.float32)
        self.local_parameters: dict[str, NDArray[np.float32]] = {}
        self.latest_loss: float | None = None
        self.during_step: Callable[[], None] = lambda: None
        self.trained = 0
        self.correction: NDArray[np.float32] | None = None

    def start(
        self,
        weights: NDArray[np.float32],
        local: Mapping[str, NDArray[np.float32]],
        correction: NDArray[np.float32] | None,
    ) -> None:
        self.weights = weights.copy()
        initial = {each.name: np.zeros(each.shape, np.float32) for each in self.manifest.local_parameters}
        self.local_parameters = {**initial, **local}
        self.correction = correction

    def train(self, task: Task, examples: Examples, progress: Callable[[], None]) -> Training:
        self.trained += 1
        size = self.manifest.layout.weight_size
        weights, reference = self.weights[:size], self.weights[:size].copy()
        rate = np.float32(self.manifest.learning_rate if task.learning_rate is None else task.learning_rate)
        steps = min(task.epochs, task.max_steps or task.epochs)
        for _ in range(steps):
            self.latest_loss = self._loss(examples)
            self.during_step()
            gradient = self._gradient(examples)
            gradient = gradient if self.correction is None else gradient + self.correction
            weights -= rate * (gradient + np.float32(task.mu) * (weights - reference))
            self.weights[size:] += np.float32(0.5)
            self.local_parameters = {name: value + np.float32(1) for name, value in self.local_parameters.items()}
            progress()
        return Training(examples.rows, steps, self._states(examples))

    def evaluate(self, examples: Examples) -> Training:
        return Training(examples.rows, 0, self._states(examples))

    def gradient(self, task: Task, examples: Examples) -> tuple[Training, NDArray[np.float32]]:
        return self.evaluate(examples), self._gradient(examples)

    def _gradient(self, examples: Examples) -> NDArray[np.float32]:
        centre = np.zeros(ELEMENTS, np.float32)
        for row in np.asarray(examples.x["x"], np.float32):
            centre += row / np.float32(examples.rows)
        return self.weights[:ELEMENTS] - centre

    def _loss(self, examples: Examples) -> float:
        squares = (np.asarray(examples.x["x"], np.float64) - self.weights[:ELEMENTS]) ** 2
        # One after the other: Python's own `sum` carries what was rounded off, from 3.12 on.
        return float(functools.reduce(operator.add, squares.ravel().tolist())) / 2 / examples.rows

    def _states(self, examples: Examples) -> dict[str, tuple[float, ...]]:
        return {"loss_sum": (self._loss(examples) * examples.rows,), "rows": (float(examples.rows),)}
