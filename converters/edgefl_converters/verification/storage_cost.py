"""Measures what storing frozen weights in fewer bytes changes: the file beside its float32 twin, on every runtime."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgefl.errors import RuntimeFailure, VerificationError
from edgefl.manifest import ModelManifest
from edgefl_converters.flatbuffer.frozen_storage import DYNAMIC
from edgefl_converters.training_step.specification import Specification
from edgefl_converters.verification.changed_steps import moved_weights, step_calls, step_change
from edgefl_converters.verification.made_up_batches import Batch, draw_batches
from edgefl_converters.verification.runtimes import Call, UnusableRuntimeError, runtimes_for
from edgefl_converters.verification.storage_report import StorageCost

__all__ = ["storage_cost"]

_BATCHES = 4
_SEED = 20260102
_MOST = 0.5
"""The limit as a share of the outputs' size: rounding to 8 bits costs a few per cent, a wrong scale or axis more than
everything."""
_MOST_OF_GRADIENT = 0.15
"""The limit of a step's error with plain SGD, where products are computed in int8. Rounding weights costs 2 to 3 %, and
what they are multiplied with 1 or 2 more; where the largest number of a row drowns what matters it is 10 and more."""
_STEPS = 2


def storage_cost(
    specification: Specification, manifest: ModelManifest, float32: bytes, stored: bytes
) -> list[StorageCost]:
    """Runs both files on the same data.

    Args:
        specification: of the model.
        manifest: of both.
        float32: the file with frozen weights in float32.
        stored: the one with fewer bytes.

    Returns:
        One entry for each runtime of the target that works here.

    Raises:
        VerificationError: a runtime refuses the file, or the outputs have little to do with each other, or the steps
            where they are computed in int8.
    """
    batches = draw_batches(specification, _BATCHES, np.random.default_rng(_SEED))
    moved = moved_weights(float32)
    steps = step_calls(manifest, moved, batches[:_STEPS])
    calls = [*(call for batch in batches for call in _calls(manifest, batch)), *steps]
    dynamic = specification.options.quantize_frozen == DYNAMIC
    limit = _MOST_OF_GRADIENT if type(specification.optimizer).__name__ == "SGD" else _MOST
    costs = []
    with tempfile.TemporaryDirectory(prefix="edgefl-verify-") as folder:
        paths = [Path(folder, name) for name in ("float32.tflite", "stored.tflite")]
        for path, data in zip(paths, (float32, stored), strict=True):
            path.write_bytes(data)
        for runtime in runtimes_for(manifest.target):
            try:
                before, after = (runtime.run(path, calls) for path in paths)
            except UnusableRuntimeError:
                continue
            except RuntimeFailure as error:
                raise VerificationError(error.message, hint="Leave `quantize_frozen` out and report this.") from error
            step = step_change(manifest, moved, before[-len(steps) :], after[-len(steps) :])
            before, after = before[: -len(steps)], after[: -len(steps)]
            outputs = [_outputs(manifest, each) for each in (before, after)]
            change = float(np.linalg.norm(outputs[1] - outputs[0]) / max(float(np.linalg.norm(outputs[0])), 1e-30))
            losses = [_loss(manifest, each) for each in (before, after)]
            name = f"{runtime.name} {runtime.version}"
            cost = StorageCost(name, change, losses[0], losses[1], step.error, step.worst, step.worst_weight)
            if not change <= _MOST or (dynamic and not step.error <= limit):
                raise VerificationError(
                    f"With its frozen weights in fewer bytes the model computes something else: {cost}.",
                    hint=f"Choose `quantize_frozen='{'int8' if dynamic else 'float16'}'`, or leave it out.",
                )
            costs.append(cost)
    return costs


def _calls(manifest: ModelManifest, batch: Batch) -> list[Call]:
    inputs = dict(zip(manifest.inputs, batch.inputs, strict=True))
    targets = {target.name: array for target, array in zip(manifest.targets, batch.targets, strict=True)}
    everything = {**inputs, **targets, "sample_weight": np.ones(manifest.batch_size, np.float32)}
    return [
        Call(name, {spec.tensor: everything[spec.name] for spec in manifest.signatures[name].inputs})
        for name in ("infer", "evaluate")
    ]


def _outputs(manifest: ModelManifest, answers: Sequence[dict[str, Any]]) -> NDArray[np.float64]:
    keys = [spec.tensor for spec in manifest.signatures["infer"].outputs]
    return np.concatenate([np.ravel(answer[key]).astype(np.float64) for answer in answers[::2] for key in keys])


def _loss(manifest: ModelManifest, answers: Sequence[dict[str, Any]]) -> float:
    keys = {spec.name: spec.tensor for spec in manifest.signatures["evaluate"].outputs}
    total, rows = (sum(float(np.sum(each[keys[name]])) for each in answers[1::2]) for name in ("loss_sum", "rows"))
    return total / rows
