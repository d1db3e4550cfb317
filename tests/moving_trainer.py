"""A trainer without an interpreter for the agent, and what it needs: a model of any size, and rows."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgefl.layout import Parameter
from edgefl.model_file import ModelFile
from edgefl_device_runtime.tasks import Training
from model_files import make_model_file

__all__ = ["MovingTrainer", "model_of", "rows_of"]


class MovingTrainer:
    """Moves every weight a little, without an interpreter."""

    version = "test/1"
    latest_loss = None

    def __init__(self, path: Path) -> None:
        self.manifest = ModelFile.read(path).manifest
        self.local_parameters: dict[str, NDArray[np.float32]] = {}

    def start(self, weights: NDArray[np.float32], local: Mapping[str, Any], correction: Any) -> None:
        self.weights = weights.copy()

    def train(self, task: Any, examples: Any, progress: Any) -> Training:
        self.weights += np.random.default_rng(task.seed).normal(size=self.weights.size).astype(np.float32) / 1000
        progress()
        rows = float(examples.rows)
        states = {"loss_sum": (rows,), "rows": (rows,), "accuracy_total": (1.0,), "accuracy_count": (rows,)}
        return Training(examples.rows, 1, states)


def model_of(folder: Path, elements: int = 10) -> Path:
    model = folder / "model.tflite"
    model.write_bytes(make_model_file([Parameter("dense/kernel", "m/dense/kernel", (elements, 1))]))
    return model


def rows_of(count: int) -> dict[str, NDArray[Any]]:
    return {"x": np.zeros((count, 3), np.float32), "y": np.zeros(count, np.int32)}
