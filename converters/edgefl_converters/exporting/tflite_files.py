"""Plain ``.tflite`` files for inference: weights as constants, any number of rows, float32 in and out."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from edgefl.errors import UnsupportedModelError, first_line
from edgefl.manifest import ModelManifest
from edgefl_converters.exporting.blended_masks import blended_masks
from edgefl_converters.exporting.rows import Rows
from edgefl_converters.flatbuffer.file import FlatModel
from edgefl_converters.flatbuffer.passes.right_forms import rewrite_forms
from edgefl_converters.flatbuffer.passes.shared_slopes import spread_slopes
from edgefl_converters.lint import lint_inference
from edgefl_converters.models.naming import signature_keys
from edgefl_converters.training_step.keras_rewrites.rewriting import rewritten_keras

__all__ = ["QUANTIZATIONS", "outputs_of", "tflite_bytes"]

QUANTIZATIONS = {
    "none": "float32",
    "float16": "float16 weights",
    "dynamic": "int8 weights, activations quantized as they come",
    "int8": "int8 weights and activations, float32 inputs and outputs",
}
"""The names that can be asked for, and what each means."""

_AT_ONCE = 32


def tflite_bytes(model: keras.Model, manifest: ModelManifest, quantize: str, rows: Rows | None) -> bytes:
    """Converts a model for inference.

    Args:
        model: with its weights.
        manifest: of the model file, for the names of inputs and outputs.
        quantize: one of `QUANTIZATIONS`.
        rows: for ``int8``, what the ranges of activations are measured on.

    Raises:
        UnsupportedModelError: an op has no builtin form, or none in this quantization.
    """
    function = _inference(model, manifest, blended=quantize == "int8")
    converter = tf.lite.TFLiteConverter.from_concrete_functions([function], _Holder(model))
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS]
    # One scale for each column of a Dense kernel needs FULLY_CONNECTED 12, which tflite-runtime 2.14 does not know.
    converter._experimental_disable_per_channel_quantization_for_dense_layers = True
    if quantize != "none":
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if quantize == "float16":
        converter.target_spec.supported_types = [tf.float16]
    if quantize == "int8":
        arrays = [(rows or {})[name] for name in manifest.inputs]
        converter.representative_dataset = lambda: _batches(arrays)
        # Without float ops beside them: a model that is asked for in integers shall not turn out to be half of it.
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    way_out = "Export it as .keras instead." if quantize == "none" else "Try another `quantize`, or none."
    try:
        data = bytes(converter.convert())
    except Exception as error:
        told = first_line(error).rpartition("error: ")[2]
        raise UnsupportedModelError(
            f"TensorFlow cannot convert the model for inference ({QUANTIZATIONS[quantize]}): {told}", hint=way_out
        ) from error
    file = FlatModel(data)
    if any([rewrite_forms(file), spread_slopes(file)]):
        data = file.pack()
    findings = lint_inference(data)
    if findings:
        raise UnsupportedModelError(
            f"The inference model would not run everywhere: {' '.join(each.message for each in findings)}",
            hint=way_out,
        )
    return data


def _inference(model: keras.Model, manifest: ModelManifest, *, blended: bool) -> Any:
    specs = manifest.signatures["infer"].inputs
    keys = signature_keys(spec.name for spec in specs)
    outputs = signature_keys(manifest.outputs)

    def infer(*tensors: tf.Tensor) -> dict[str, tf.Tensor]:
        return dict(zip(outputs, outputs_of(model, tensors), strict=True))

    signature = [
        tf.TensorSpec([None, *spec.shape[1:]], spec.dtype, name=key) for spec, key in zip(specs, keys, strict=True)
    ]
    # Keras's loop over time needs a batch of fixed size.
    with rewritten_keras("recurrence"), blended_masks() if blended else contextlib.nullcontext():
        whole = tf.compat.v1.wrap_function(infer, signature)
    # Recurrent layers draw their dropout also where nothing is dropped, and change the seed's variable by it.
    needed = whole.prune(whole.inputs[: len(signature)], whole.structured_outputs)
    _require_determinate(needed)
    return needed


def _require_determinate(function: Any) -> None:
    drawing = next((op for op in function.graph.get_operations() if "Random" in op.type), None)
    if drawing is not None:
        raise UnsupportedModelError(
            f"The model draws random numbers also in inference ({drawing.type} in {drawing.name!r}): a .tflite file "
            "would give other results than Keras.",
            hint="Draw only where `training` is true, or export it as .keras instead.",
        )


def outputs_of(model: keras.Model, tensors: Any) -> list[Any]:
    """Returns what a model computes of its inputs in order, as a flat list."""
    structure = getattr(model, "_inputs_struct", None)
    given = tensors[0] if len(tensors) == 1 else list(tensors)
    if structure is not None:
        given = keras.tree.pack_sequence_as(structure, list(tensors))
    returned = model(given, training=False) if model._call_has_training_arg else model(given)
    return list(keras.tree.flatten(returned))


def _batches(arrays: list[NDArray[Any]]) -> Iterator[list[NDArray[Any]]]:
    for start in range(0, len(arrays[0]), _AT_ONCE):
        yield [np.ascontiguousarray(array[start : start + _AT_ONCE]) for array in arrays]


class _Holder(tf.Module):  # type: ignore[misc]
    """The raw variables: TensorFlow saves those of a Keras model without their values."""

    def __init__(self, model: keras.Model) -> None:
        super().__init__()
        self.raw = [variable.value for variable in model.variables]
