"""Trains the file of a model on a device's interpreter beside Keras's own ``fit``, on the same batches."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np

import edgefl
from edgefl.manifest import ModelManifest
from edgefl_device_runtime.training import TrainableModel

__all__ = ["fits_alike"]


def fits_alike(
    model: keras.Model, folder: Path, x: Any, y: Any = None, *, batch_size: int = 4, epochs: int = 3, **options: Any
) -> ModelManifest:
    """Asserts that a file ends with the loss, metrics and weights of Keras's ``fit``; Keras's model is trained by it.

    Args:
        model: compiled, without randomness of its own.
        folder: for the file.
        x: inputs, of full batches.
        y: targets; None for models that take none.
        batch_size: rows of a batch.
        epochs: how often the batches are passed.
        options: of `edgefl.convert`.

    Returns:
        What the file says about itself.
    """
    options = {"verify": False, **options}
    manifest = edgefl.convert(model, folder / "model.tflite", batch_size=batch_size, **options).manifest
    device = TrainableModel(folder / "model.tflite", runtime="ai-edge-litert")
    found = device.fit(x, y, epochs=epochs, shuffle=False).history
    expected = model.fit(x, y, batch_size=batch_size, epochs=epochs, shuffle=False, verbose=0).history
    assert set(found) <= set(expected)
    for name, values in found.items():
        np.testing.assert_allclose(values, expected[name], rtol=1e-5, atol=1e-6, err_msg=name)
    trained = [variable for variable in model.weights if variable.trainable]
    names = [parameter.name for parameter in manifest.parameters if parameter.role == "weight"]
    assert len(names) == len(trained)
    for weight, variable in zip(device.get_weights(), model.weights, strict=False):
        np.testing.assert_allclose(weight, variable, rtol=1e-4, atol=1e-6, err_msg=variable.path)
    return manifest
