"""Runs signatures that change nothing over any number of rows."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from edgefl.manifest import ModelManifest
from edgefl.metrics import add_states
from edgefl.wire.vocabulary import BatchPolicy
from edgefl_device_runtime.training.batches import BatchBuffers, batches
from edgefl_device_runtime.training.data import Dataset
from edgefl_device_runtime.training.interpreter import Arrays, Interpreter

__all__ = ["run_batches", "sum_states"]


def run_batches(
    interpreter: Interpreter, manifest: ModelManifest, signature: str, data: Dataset
) -> Iterator[tuple[Arrays, int]]:
    """Runs a signature batch by batch.

    Args:
        interpreter: the loaded model.
        manifest: its manifest.
        signature: ``evaluate`` or ``infer``.
        data: prepared for it.

    Yields:
        The outputs by tensor, and how many of their rows are real: those at the beginning.
    """
    tensors = {spec.name: spec.tensor for spec in manifest.signatures[signature].inputs}
    size = manifest.batch_size
    buffers = BatchBuffers(data.columns, tensors, size, data.sample_weight, divides=False)
    inputs = dict(buffers.arrays)
    if "sample_weight" in tensors:
        inputs[tensors["sample_weight"]] = buffers.weights
    call = interpreter.signature(signature)
    for real in buffers.fill(batches(np.arange(data.rows), size, size, BatchPolicy.PAD)):
        yield call(inputs), real


def sum_states(interpreter: Interpreter, manifest: ModelManifest, data: Dataset) -> dict[str, NDArray[np.float64]]:
    """The states of loss and metrics, summed over all rows, by name."""
    specs = manifest.signatures["evaluate"].outputs
    sums: dict[str, NDArray[np.float64]] = {}
    for outputs, _ in run_batches(interpreter, manifest, "evaluate", data):
        add_states(sums, {spec.name: outputs[spec.tensor].reshape(spec.shape) for spec in specs})
    return sums
