"""The gradient of a whole data set at the current weights (FedSGD, McMahan et al. 2017, section 2), and corrections."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from edgefl.algorithms import conversion_hint
from edgefl.errors import DataError, InvalidSettingError
from edgefl.layout import ParameterLayout
from edgefl.manifest import ModelManifest
from edgefl.metrics import add_states, finalise
from edgefl.wire.vocabulary import BatchPolicy
from edgefl_device_runtime.training.batches import BatchBuffers, batches, number_of_batches
from edgefl_device_runtime.training.data import Dataset
from edgefl_device_runtime.training.interpreter import Interpreter
from edgefl_device_runtime.training.randomness import step_seeds

__all__ = ["Gradient", "compute_gradient", "correction_inputs"]

_PREFIX = "gradient/"


@dataclass(frozen=True, repr=False)
class Gradient:
    """A gradient with what was computed beside it, as `TrainableModel.gradient` returns it.

    Attributes:
        vector: float32 ``[manifest.layout.weight_size]``: the mean over the rows of the loss's gradient.
        metrics: loss and metrics at the same weights, by name.
        states: the sums behind them, as in `TrainableModel.evaluate_states`.
        num_examples: rows of the data, also those that were left out because they did not fill a batch.
    """

    vector: NDArray[np.float32]
    metrics: Mapping[str, float]
    states: Mapping[str, NDArray[np.float64]]
    num_examples: int

    def __repr__(self) -> str:
        values = ", ".join(f"{name} {value:.4f}" for name, value in self.metrics.items())
        return f"<Gradient: {self.vector.size:,} elements over {self.num_examples:,} examples, {values}>"


def compute_gradient(
    interpreter: Interpreter, manifest: ModelManifest, data: Dataset, policy: BatchPolicy, seed: int
) -> Gradient:
    """Runs the signature ``gradient`` over all rows in their order; nothing is changed.

    The mean over batches is weighted by their real rows, in float64, so that it is that of one large batch.

    Args:
        interpreter: the loaded model.
        manifest: its manifest, with the signature.
        data: prepared for it.
        policy: ``PAD``, ``DROP`` or ``REFILL``.
        seed: of the model's own random numbers.
    """
    signature, size, layout = manifest.signatures["gradient"], manifest.batch_size, manifest.layout
    tensors = {spec.name: spec.tensor for spec in signature.inputs}
    outputs = {spec.name: spec for spec in signature.outputs}
    states = [outputs[name] for metric in manifest.metrics for name in metric.states]
    slices = [
        (outputs[_PREFIX + each.name].tensor, slice(layout.offsets[each.name], layout.offsets[each.name] + each.size))
        for each in layout
        if each.role == "weight"
    ]
    buffers = BatchBuffers(data.columns, tensors, size, data.sample_weight, divides=True)
    inputs = {**buffers.arrays, tensors["sample_weight"]: buffers.weights}
    seeds = step_seeds(number_of_batches(data.rows, size, policy), seed, 0) if "seed" in tensors else None
    call = interpreter.signature("gradient")
    total, sums = np.zeros(layout.weight_size), {"loss_sum": np.zeros(()), "rows": np.zeros(())}
    for step, real in enumerate(buffers.fill(batches(np.arange(data.rows), size, size, policy))):
        if seeds is not None:
            inputs[tensors["seed"]] = seeds[step : step + 1]
        found = call(inputs)
        for tensor, where in slices:
            total[where] += np.multiply(found[tensor].ravel(), float(real), dtype=np.float64)
        add_states(sums, {spec.name: found[spec.tensor].reshape(spec.shape) for spec in states})
        sums["loss_sum"] += found[outputs["loss"].tensor].item() * real
        sums["rows"] += real
    vector = (total / float(sums["rows"])).astype(np.float32)
    return Gradient(vector, finalise(manifest.metrics, sums), sums, data.rows)


def correction_inputs(manifest: ModelManifest, vector: ArrayLike | None) -> dict[str, NDArray[np.float32]]:
    """Returns the inputs of ``set_correction`` by tensor.

    Args:
        manifest: of a file that has the signature.
        vector: float32 ``[weight_size]``; None: zeros.

    Raises:
        InvalidSettingError: the file has no such signature.
        DataError: the vector has another shape or type, or is not finite.
    """
    if not manifest.has_correction:
        raise InvalidSettingError(
            "The model file takes no correction of its gradient.",
            hint=conversion_hint("scaffold", "feddyn"),
        )
    weights = ParameterLayout([each for each in manifest.layout if each.role == "weight"])
    array = np.zeros(weights.size, np.float32) if vector is None else np.asarray(vector)
    if array.dtype.kind == "f":
        array = np.ascontiguousarray(array, np.float32)
    views = weights.views(array)
    if not np.isfinite(array).all():
        raise DataError("The correction must be finite, got NaN or infinity.")
    return {spec.tensor: views[spec.name].reshape(spec.shape) for spec in manifest.signatures["set_correction"].inputs}
