"""The files of a job: the model in edgefl's and in Keras's form, and the rows with the device of each."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np

from edgefl_simulation.data import fashion_mnist
from fleets.job import BATCH, DEVICES, LEARNING_RATE

__all__ = ["prepare"]


def prepare(model: str, folder: Path) -> Path:
    """Writes a model and the data, unless they are there.

    Args:
        model: see `Job`.
        folder: of all models.

    Returns:
        The folder of this one.
    """
    folder = folder / model
    if not (folder / "data" / "test_y.npy").exists():
        (folder / "data").mkdir(parents=True, exist_ok=True)
        # TensorFlow stays in a process of its own.
        path = os.pathsep.join([str(Path(__file__).parent.parent), os.environ.get("PYTHONPATH", "")])
        command = [sys.executable, "-m", "fleets.preparing", model, folder.resolve()]
        subprocess.run(command, check=True, capture_output=True, env={**os.environ, "PYTHONPATH": path})
        _write_data(model, folder / "data")
    return folder


def _write_data(model: str, folder: Path) -> None:
    whole = fashion_mnist.load()
    shape = (-1, 784) if model == "2nn" else (-1, 28, 28, 1)
    x, y = whole.arrays["x"].reshape(shape), whole.arrays["y"]
    order = np.random.default_rng(1).permutation(len(x))
    owners = np.array([f"device-{number * DEVICES // len(x):03d}" for number in range(len(x))])
    arrays = {
        "x": x[order],
        "y": y[order],
        "id": owners,
        "test_x": whole.held_out["x"].reshape(shape),
        "test_y": whole.held_out["y"],
    }
    for name, array in arrays.items():
        np.save(folder / f"{name}.npy", array)


def _write_model(model: str, folder: Path) -> None:
    import keras

    import edgefl
    from local_steps.keras_models import build

    keras.utils.set_random_seed(2017)
    built = build(model)
    built.compile(keras.optimizers.SGD(LEARNING_RATE), "sparse_categorical_crossentropy", metrics=["accuracy"])
    np.savez(folder / "weights.npz", *built.get_weights())
    edgefl.convert(built, folder / "model.tflite", batch_size=BATCH, verify=False)


if __name__ == "__main__":
    _write_model(sys.argv[1], Path(sys.argv[2]))
