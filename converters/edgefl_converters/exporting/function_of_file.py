"""Tells whether a model computes with some weights what the file computes with them: was it made from this model?"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import keras
import numpy as np

from edgefl.errors import VerificationError
from edgefl.model_file import ModelFile
from edgefl.weight_files import NamedArrays
from edgefl_converters.exporting.inference_agreement import keras_outputs
from edgefl_converters.exporting.original_models import BASE
from edgefl_converters.exporting.rows import made_up_rows
from edgefl_converters.verification.runtimes import Call, UnusableRuntimeError, installed_runtimes

__all__ = ["require_same_function"]

_LIMIT, _QUANTIZED_LIMIT = 1e-3, 0.25
"""The limit as a share of the largest output: rounding, and what frozen constants in fewer bits may cost. Another
base is off by more."""
_SMALL = ("INT8", "FLOAT16")


def require_same_function(source: ModelFile, values: NamedArrays, model: keras.Model) -> None:
    """Runs the model file with some weights, and a Keras model that has them, on the same made-up rows.

    Args:
        source: the model file.
        values: its parameters.
        model: with these weights, adapters merged.

    Raises:
        VerificationError: they differ: frozen weights, or the alpha of adapters, are not those of the file.
    """
    manifest = source.manifest
    taken = manifest.signatures["set_weights"].inputs
    if {spec.name for spec in taken} != {parameter.name for parameter in manifest.parameters}:
        return  # parameters that never leave a device cannot be set from outside
    specs = manifest.signatures["infer"].inputs
    rows = made_up_rows(model, manifest)
    batch = [np.resize(rows[spec.name], spec.shape) for spec in specs]
    calls = [
        Call("set_weights", {spec.tensor: values[spec.name].reshape(spec.shape) for spec in taken}),
        Call("infer", {spec.tensor: array for spec, array in zip(specs, batch, strict=True)}),
    ]
    outputs = _run(source, calls)
    limit = _QUANTIZED_LIMIT if _holds_small_constants(source) else _LIMIT
    expected = keras_outputs(model, manifest, batch)
    for spec in manifest.signatures["infer"].outputs if outputs else ():
        off = float(np.abs(outputs[spec.tensor].astype(np.float64) - expected[spec.name]).max(initial=0.0))
        size = max(float(np.abs(expected[spec.name]).max(initial=0.0)), 1e-3)
        if not off <= limit * size:
            raise VerificationError(
                f"The base model is not the one that {source.name} was made from: with the same weights, output "
                f"{spec.name!r} differs by up to {off:.2g}.",
                hint=f"{BASE} If its LoRA adapters have an alpha of their own, give it with them.",
            )


def _run(source: ModelFile, calls: list[Call]) -> dict[str, Any]:
    """Outputs of the last call on the first runtime that works here; none where none does."""
    with tempfile.TemporaryDirectory(prefix="edgefl-export-") as folder:
        path = Path(folder, "model.tflite")
        path.write_bytes(source.data)
        for runtime in installed_runtimes():
            try:
                return dict(runtime.run(path, calls)[-1])
            except UnusableRuntimeError:
                continue
    return {}


def _holds_small_constants(source: ModelFile) -> bool:
    from tensorflow.lite.python import schema_py_generated as schema

    model = schema.ModelT.InitFromPackedBuf(bytes(source.data), 0)
    small = {getattr(schema.TensorType, name) for name in _SMALL}
    return any(tensor.type in small for graph in model.subgraphs for tensor in graph.tensors)
