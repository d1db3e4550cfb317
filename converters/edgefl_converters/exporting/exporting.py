"""The way from a model file and trained weights to the file that was asked for."""

from __future__ import annotations

import os
from collections.abc import Collection
from pathlib import Path
from typing import Any

import keras
import numpy as np

from edgefl.atomic import write_bytes
from edgefl.errors import InvalidSettingError, UnsupportedModelError, storage_error
from edgefl.model_file import ModelFile
from edgefl.weight_files import (
    NamedArrays,
    Weights,
    npz_bytes,
    read_weights,
    safetensors_bytes,
)
from edgefl_converters.exporting.function_of_file import require_same_function
from edgefl_converters.exporting.inference_agreement import compare_with_keras
from edgefl_converters.exporting.keras_files import keras_bytes, keras_bytes_with_adapters
from edgefl_converters.exporting.original_models import (
    Original,
    manifest_adapters,
    original_model,
    require_complete,
    weights_by_name,
)
from edgefl_converters.exporting.rows import calibration_rows, made_up_rows
from edgefl_converters.exporting.tflite_files import QUANTIZATIONS, tflite_bytes
from edgefl_converters.models.adapter_layers import merge
from edgefl_converters.results import ExportResult

__all__ = ["export"]

_KINDS = {
    ".keras": "the model for Keras",
    ".tflite": "one for inference",
    ".safetensors": "weights by name",
    ".npz": "weights by name for numpy",
}
_ADAPTERS = ("merged", "kept")


def export(
    file: str | os.PathLike[str],
    weights: Weights,
    out: str | os.PathLike[str],
    *,
    base: Any = None,
    adapters: str = "merged",
    quantize: str = "none",
    calibration: Any = None,
) -> ExportResult:
    """See `edgefl_converters.export`."""
    path = Path(out)
    _check_settings(path, adapters, quantize, calibration)
    source = ModelFile.read(file)
    source.verify()
    if path.exists() and path.samefile(file):
        raise InvalidSettingError(
            f"{path} is the trainable model file itself.", hint="Give the exported file another name."
        )
    manifest = source.manifest
    if adapters == "kept" and not manifest_adapters(manifest):
        raise InvalidSettingError(
            f"{source.name} has no LoRA adapters to keep.", hint="Leave `adapters` out: the model is exported as it is."
        )
    if path.suffix in (".npz", ".safetensors") and base is None:
        return _write_weights(path, read_weights(source, weights, frozen=_frozen_names(source, weights)))
    rows = None if calibration is None else calibration_rows(calibration, manifest)
    original = original_model(source, base)
    model, own = original.model, weights_by_name(original.model)
    parameters = {parameter.name for parameter in manifest.parameters}
    values = read_weights(source, weights, frozen=own.keys() - parameters)
    require_complete(source, original, values, from_base=base is not None)
    if path.suffix in (".npz", ".safetensors"):
        return _write_weights(path, {**{name: np.asarray(each) for name, each in own.items()}, **values})
    before = {name: np.array(variable) for name, variable in own.items()}
    report: dict[str, Any] = {}
    try:
        _assign(own, _merged(original, values, before))
        if base is not None or original.adapters:
            require_same_function(source, values, model)
        if adapters == "kept":
            _assign(own, {**before, **{name: value for name, value in values.items() if name in own}})
            data, report = keras_bytes_with_adapters(original, manifest, values), {"adapters": adapters}
        elif path.suffix == ".keras":
            data = keras_bytes(model)
        else:
            data, report = _inference(model, source, quantize, rows)
    finally:
        # A base that was given as an object is the caller's: it gets its weights back.
        _assign(own, before)
    write_bytes(path, data)
    return ExportResult(path, {"bytes": len(data), **report})


def _check_settings(path: Path, adapters: str, quantize: str, calibration: Any) -> None:
    if path.suffix not in _KINDS:
        raise InvalidSettingError(
            f"Expected an output that ends in {', '.join(list(_KINDS)[:-1])} or {list(_KINDS)[-1]}, got {path.name!r}.",
            hint=f"{'; '.join(f'{suffix} is {meaning}' for suffix, meaning in _KINDS.items())}.",
        )
    for option, value, known in (("adapters", adapters, _ADAPTERS), ("quantize", quantize, tuple(QUANTIZATIONS))):
        if value not in known:
            raise InvalidSettingError(f"Expected `{option}` to be one of {', '.join(known)}, got {value!r}.")
    if adapters == "kept" and path.suffix != ".keras":
        raise InvalidSettingError(
            f"Adapters are kept in a .keras file, not in {path.name!r}.",
            hint="An inference model has them merged; .safetensors and .npz hold the parameters as they are trained.",
        )
    if quantize != "none" and path.suffix != ".tflite":
        raise InvalidSettingError(
            f"`quantize` is for inference models (.tflite), not for {path.name!r}.", hint="Leave it out."
        )
    if quantize == "int8" and calibration is None:
        raise InvalidSettingError(
            "int8 needs a calibration source: the ranges of the activations are measured on it.",
            hint="Give rows of the inputs as `calibration`, or `quantize='dynamic'`, which needs none.",
        )
    if calibration is not None and quantize != "int8":
        raise InvalidSettingError(
            f"A calibration source is for `quantize='int8'`, got {quantize!r}.", hint="Leave `calibration` out."
        )
    if not path.parent.is_dir():
        raise storage_error(FileNotFoundError(2, "the folder does not exist"), "write", path)


def _frozen_names(source: ModelFile, weights: Weights) -> Collection[str]:
    """Tells which other weights the model has, where weights by name may hold them and the manifest tells enough."""
    if not source.manifest.frozen or weights is None or isinstance(weights, np.ndarray):
        return ()
    try:
        names = weights_by_name(original_model(source, None).model).keys()
    except UnsupportedModelError:
        return ()
    return names - {parameter.name for parameter in source.manifest.parameters}


def _merged(original: Original, values: NamedArrays, before: NamedArrays) -> NamedArrays:
    """The values of the ordinary model's weights, adapters added to what they adapt."""
    known = {**before, **values}
    merged = {
        each.weight: merge(known[each.weight], values[each.a], values[each.b], each.alpha / each.rank)
        for each in original.adapters
    }
    return {name: value for name, value in {**values, **merged}.items() if name in before}


def _assign(variables: dict[str, Any], values: NamedArrays) -> None:
    for name, value in values.items():
        variables[name].assign(value)


def _inference(model: keras.Model, source: ModelFile, quantize: str, rows: Any) -> tuple[bytes, dict[str, Any]]:
    manifest = source.manifest
    data = tflite_bytes(model, manifest, quantize, rows)
    compared = made_up_rows(model, manifest) if rows is None else rows
    agreement = compare_with_keras(data, model, manifest, compared, quantize)
    calibrated = None if rows is None else len(next(iter(rows.values())))
    return data, {
        "quantize": quantize,
        "meaning": QUANTIZATIONS[quantize],
        "calibration_rows": calibrated,
        "agreement": agreement,
    }


def _write_weights(path: Path, values: NamedArrays) -> ExportResult:
    data = safetensors_bytes(values) if path.suffix == ".safetensors" else npz_bytes(values)
    write_bytes(path, data)
    return ExportResult(path, {"bytes": len(data), "arrays": len(values)})
