"""Measures how far an exported inference model's outputs are from Keras's, on every installed runtime."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from edgefl.errors import RuntimeFailure, UnsupportedModelError, VerificationError
from edgefl.manifest import ModelManifest
from edgefl_converters.exporting.rows import Rows
from edgefl_converters.exporting.tflite_files import outputs_of
from edgefl_converters.models.naming import signature_keys
from edgefl_converters.verification.runtimes import Call, UnusableRuntimeError, installed_runtimes

__all__ = ["compare_with_keras", "keras_outputs"]

_LIMITS = {"none": 1e-3, "float16": 3e-2}
"""The limit as a share of the largest output: what rounding explains. More is another function. Quantized activations
have no limit."""
_ROWS = 256
_AT_ONCE = 32


def compare_with_keras(
    data: bytes, model: keras.Model, manifest: ModelManifest, rows: Rows, quantize: str
) -> dict[str, Any]:
    """Runs an inference model in child processes.

    Args:
        data: the ``.tflite`` file.
        model: what it was made from.
        manifest: of the model file.
        rows: what both are run on; the first 256 of them.
        quantize: how it was made.

    Returns:
        ``rows`` and, for each of the ``runtimes``, for each output its ``range`` in Keras, the ``largest`` and the
        ``mean`` distance from it, and for classifiers the share of rows with the ``same_class``.

    Raises:
        UnsupportedModelError: a runtime refuses the model.
        VerificationError: it computes something else than Keras, by more than rounding explains.
    """
    chosen = [rows[name][:_ROWS] for name in manifest.inputs]
    expected = keras_outputs(model, manifest, chosen)
    report: dict[str, Any] = {"rows": len(chosen[0]), "runtimes": []}
    with tempfile.TemporaryDirectory(prefix="edgefl-export-") as folder:
        path = Path(folder, "model.tflite")
        path.write_bytes(data)
        inputs = dict(zip(signature_keys(manifest.inputs), chosen, strict=True))
        for runtime in installed_runtimes():
            described: dict[str, Any] = {"name": runtime.name, "version": runtime.version, "ran": True}
            report["runtimes"].append(described)
            try:
                outputs = runtime.run(path, [Call("serving_default", inputs)])[0]
            except UnusableRuntimeError as error:
                described.update(ran=False, reason=error.message)
                continue
            except RuntimeFailure as error:
                raise UnsupportedModelError(
                    f"The inference model does not run: {error.message}", hint="Try another `quantize`, or none."
                ) from error
            named = dict(zip(manifest.outputs, signature_keys(manifest.outputs), strict=True))
            described["outputs"] = {
                name: _distance(np.asarray(outputs[named[name]]), value) for name, value in expected.items()
            }
            _require(described, quantize)
    return report


def keras_outputs(model: keras.Model, manifest: ModelManifest, arrays: list[NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """A model's outputs by name for rows of its inputs in order."""
    parts: list[list[NDArray[Any]]] = []
    for start in range(0, len(arrays[0]), _AT_ONCE):
        tensors = [keras.ops.convert_to_tensor(array[start : start + _AT_ONCE]) for array in arrays]
        parts.append([np.asarray(each) for each in outputs_of(model, tensors)])
    return {name: np.concatenate(each) for name, each in zip(manifest.outputs, zip(*parts), strict=True)}


def _distance(actual: NDArray[Any], expected: NDArray[Any]) -> dict[str, Any]:
    off = np.abs(actual.astype(np.float64) - expected.astype(np.float64))
    described: dict[str, Any] = {
        "largest": float(off.max(initial=0.0)),
        "mean": float(off.mean()),
        "range": [float(expected.min()), float(expected.max())],
    }
    if expected.ndim == 2 and expected.shape[1] > 1:
        described["same_class"] = float(np.mean(actual.argmax(axis=1) == expected.argmax(axis=1)))
    return described


def _require(described: Mapping[str, Any], quantize: str) -> None:
    for name, distance in described["outputs"].items():
        size = max(map(abs, distance["range"]))
        finite = np.isfinite(distance["largest"])
        if not finite or distance["largest"] > _LIMITS.get(quantize, np.inf) * max(size, 1e-3):
            raise VerificationError(
                f"The inference model does not compute what Keras computes: on {described['name']} "
                f"{described['version']} output {name!r} is up to {distance['largest']:.2g} off.",
                hint="Nothing was written. Please report the model; export it as .keras instead.",
            )
