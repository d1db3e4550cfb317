"""Local data beside a model file, before any server is asked: whether it fits, and how good the model is for it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgefl.errors import DataError
from edgefl.model_file import ModelFile
from edgefl.weight_files import read_weights
from edgefl_device_runtime.agent.sources import open_source
from edgefl_device_runtime.tasks import MINIMUM_EXAMPLES, Examples, arrange
from edgefl_device_runtime.training import TrainableModel
from edgefl_device_runtime.training.interpreter import runtime_version

__all__ = ["Fit", "check_data", "evaluate_data"]

_STEPS = 3
"""A first step pays for what later ones find ready; three are over at once for all but the largest models."""


@dataclass(frozen=True)
class Fit:
    """Data that a device can take part with.

    Attributes:
        examples: how many there are.
        counting: those whose weight is not 0.
        inputs: type and shape of a row by the input's name.
        targets: the same by the target's name.
        runtime: product and version of the interpreter that trained.
        steps: that it took, on weights that are forgotten again.
        loss: before the first of them, on its batch.
        seconds_per_step: of the fastest.
        steps_per_epoch: that an epoch over this data has.
    """

    examples: int
    counting: int
    inputs: dict[str, tuple[str, tuple[int, ...]]]
    targets: dict[str, tuple[str, tuple[int, ...]]]
    runtime: str
    steps: int
    loss: float
    seconds_per_step: float
    steps_per_epoch: int


def check_data(
    file: Path,
    data: str,
    *,
    minimum_examples: int = MINIMUM_EXAMPLES,
    runtime: str = "auto",
    clock: Callable[[], float] = time.perf_counter,
) -> Fit:
    """Does with a model and local data what a task would do, for a few steps; nothing is sent or kept.

    Args:
        file: the model file.
        data: as `edgefl device run` takes it.
        minimum_examples: with fewer that count, a device takes no part.
        runtime: the interpreter.
        clock: seconds, to time a step.

    Raises:
        DataError: the data does not fit the model, is too little, or training on it leaves the finite numbers.
        ModelFileError: the file is no model file, or damaged.
        RuntimeFailure: the interpreter refuses the model.
        MissingDependencyError: no interpreter is installed.
    """
    model = TrainableModel(file, runtime=runtime)
    examples = arrange(open_source(data)(), model.manifest)
    counting = _counting(examples)
    if examples.rows and counting < minimum_examples:
        raise DataError(
            f"{data} holds {_counted(counting, 'example')} that count, and a device takes part with at least "
            f"{minimum_examples}.",
            hint="Gather more; or the owner may lower --minimum-examples, as far as one example alone may be read "
            "from an update.",
        )
    batch, losses, times = model.manifest.batch_size, [], []
    for _ in range(_STEPS):
        begun = clock()
        history = model.fit(examples.x, examples.y, sample_weight=examples.sample_weight, max_steps=1)
        times.append(clock() - begun)
        losses.append(history.history["loss"][-1])
    if not (np.isfinite(losses).all() and np.isfinite(model.weights).all()):
        raise DataError(
            f"Training {file} on {data} leaves the finite numbers within {_STEPS} steps: loss "
            f"{', '.join(f'{each:g}' for each in losses)}.",
            hint="Scale the inputs, or have the run created with a smaller --learning-rate.",
        )
    return Fit(
        examples.rows,
        counting,
        {name: (str(array.dtype), tuple(array.shape[1:])) for name, array in examples.x.items()},
        {name: (str(array.dtype), tuple(array.shape[1:])) for name, array in examples.y.items()},
        f"{model.runtime} {runtime_version(model.runtime)}",
        _STEPS,
        float(losses[0]),
        min(times),
        -(-examples.rows // batch),
    )


def evaluate_data(file: Path, data: str, weights: Path | None = None, *, runtime: str = "auto") -> dict[str, Any]:
    """Computes loss and metrics of a model on data.

    Args:
        file: the model file.
        data: as `edgefl device run` takes it.
        weights: as `edgefl export` takes them; None: those that the file holds.
        runtime: the interpreter.

    Returns:
        ``examples``, ``runtime`` and ``metrics``, by name, the loss among them.

    Raises:
        DataError: data or weights do not fit the model.
        ModelFileError: the file is no model file, or damaged.
        RuntimeFailure: the interpreter refuses the model.
        MissingDependencyError: no interpreter is installed.
        StorageError: a file cannot be read.
    """
    model = TrainableModel(file, runtime=runtime)
    if weights is not None:
        model.set_weights(read_weights(ModelFile.map(file), weights))
    examples = arrange(open_source(data)(), model.manifest)
    values = model.evaluate(examples.x, examples.y, examples.sample_weight)
    return {
        "examples": examples.rows,
        "runtime": f"{model.runtime} {runtime_version(model.runtime)}",
        "metrics": {name: float(value) for name, value in values.items()},
    }


def _counting(examples: Examples) -> int:
    weight = examples.sample_weight
    return examples.rows if weight is None else int(np.count_nonzero(weight))


def _counted(count: int, noun: str) -> str:
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"
