"""A device's memory after many rounds is what it was after the first ones; each measured in a process of its own."""

from __future__ import annotations

import gc
import json
import subprocess
import sys
import weakref
from pathlib import Path

import numpy as np
import pytest

from edgefl_device_runtime.training import TrainableModel
from interpreters import each_interpreter

CHILD = Path(__file__).parents[2] / "rounds_in_a_child.py"


@pytest.fixture(params=each_interpreter())
def any_runtime(request: pytest.FixtureRequest) -> str:
    """Each interpreter in turn, also beside TensorFlow: nothing of it runs in this process."""
    return str(request.param)


def grown(runtime: str, rounds: int, *models: Path) -> float:
    """Megabytes by which so many rounds raised the memory that their first tenth needed."""
    command = [sys.executable, str(CHILD), runtime, str(rounds), *map(str, models)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return float(json.loads(done.stdout)["grown"])


def test_memory_stays_flat_over_rounds(any_runtime: str, federated_file: Path) -> None:
    # A signature list that stays: 3.4 MB with tflite-runtime.
    assert grown(any_runtime, 150, federated_file) < 1.0


def test_a_model_goes_when_another_takes_its_place(any_runtime: str, wide_file: Path, conv1d_file: Path) -> None:
    # Models that stay until a late collection: 11 to 19 MB.
    assert grown(any_runtime, 20, wide_file, conv1d_file) < 3.0


def test_nothing_waits_for_the_garbage_collector_when_a_model_is_dropped(runtime: str, mlp_file: Path) -> None:
    model = TrainableModel(mlp_file, runtime=runtime)
    model.fit(np.zeros((8, 20), np.float32), np.zeros(8, int))
    gone = weakref.ref(model._interpreter._interpreter)
    gc.disable()
    try:
        del model
        assert gone() is None
    finally:
        gc.enable()


@pytest.mark.slow
def test_memory_stays_flat_over_two_thousand_rounds(any_runtime: str, conv1d_file: Path, federated_file: Path) -> None:
    for file in (conv1d_file, federated_file):
        assert grown(any_runtime, 2000, file) < 5.0


@pytest.mark.slow
def test_memory_stays_flat_over_fifty_alternations_of_two_models(
    any_runtime: str, wide_file: Path, conv1d_file: Path
) -> None:
    assert grown(any_runtime, 100, wide_file, conv1d_file) < 5.0
