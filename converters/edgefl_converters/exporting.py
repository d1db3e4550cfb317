"""Trained weights back into a Keras model, or into a plain TFLite model for inference."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import ArrayLike, NDArray

from edgefl.atomic import write_bytes
from edgefl.errors import DataError, InvalidSettingError, ModelError, UnsupportedModelError, storage_error
from edgefl.manifest import ModelManifest
from edgefl.model_file import ModelFile
from edgefl_converters.lint import lint_inference
from edgefl_converters.loading import load
from edgefl_converters.naming import PathNames, signature_keys, stable_names

__all__ = ["export", "read_weights"]

Weights = str | os.PathLike[str] | Mapping[str, ArrayLike] | NDArray[np.float32] | None

_BASE = "Give the Keras model that the file was made from: base=... (on the command line --base)."


def export(
    file: str | os.PathLike[str],
    weights: Weights,
    out: str | os.PathLike[str],
    *,
    base: Any = None,
) -> Path:
    """See `edgefl_converters.export`."""
    path = Path(out)
    writers = {".keras": _keras_bytes, ".tflite": _tflite_bytes}
    if path.suffix not in writers:
        raise InvalidSettingError(
            f"Expected an output that ends in .keras or .tflite, got {path.name!r}.",
            hint="model.keras is the model for Keras, model.tflite one for inference.",
        )
    if not path.parent.is_dir():
        raise storage_error(FileNotFoundError(2, "the folder does not exist"), "write", path)
    source = ModelFile.read(file)
    source.verify()
    if path.exists() and path.samefile(file):
        raise InvalidSettingError(
            f"{path} is the trainable model file itself.", hint="Give the exported file another name."
        )
    values = read_weights(source, weights)
    model = _rebuild(source.manifest, source.name) if base is None else load(base)
    variables = _match(model, source.manifest)
    before = {name: np.array(variable) for name, variable in variables.items()}
    try:
        for name, variable in variables.items():
            variable.assign(values[name])
        data = writers[path.suffix](model, source.manifest)
    finally:
        # A base that was given as an object is the caller's: it gets its weights back.
        for name, variable in variables.items():
            variable.assign(before[name])
    write_bytes(path, data)
    return path


def read_weights(source: ModelFile, weights: Weights) -> dict[str, NDArray[np.float32]]:
    """Every parameter of a model file by name, with trained weights where there are some.

    Args:
        source: the model file; parameters that never leave a device keep its values.
        weights: a ``.npy`` of the flat vector as `edgefl run weights` writes it, an ``.npz`` of named parameters, the
            same as an array or a mapping, or None.

    Raises:
        DataError: they belong to another layout, or the file holds neither.
        StorageError: the file cannot be read.
    """
    manifest = source.manifest
    values = {parameter.name: np.array(source.initial_value(parameter)) for parameter in manifest.parameters}
    if weights is None:
        return values
    if isinstance(weights, (str, os.PathLike)):
        weights = _read_file(Path(weights))
    vector = manifest.layout.pack(weights) if isinstance(weights, Mapping) else manifest.layout.check(weights)
    if not np.all(np.isfinite(vector)):
        raise DataError("The weights hold values that are not finite.", hint="Take the weights of an earlier round.")
    return {**values, **manifest.layout.views(vector)}


def _read_file(path: Path) -> dict[str, NDArray[Any]] | NDArray[Any]:
    try:
        loaded = np.load(path)
        if isinstance(loaded, np.ndarray):
            return loaded
        with loaded as archive:
            return {name: archive[name] for name in archive.files}
    except OSError as error:
        if error.errno is None:
            raise _no_weights(path) from error
        raise storage_error(error, "read", path) from error
    except Exception as error:  # numpy raises what its zip and header parsers raise
        raise _no_weights(path) from error


def _no_weights(path: Path) -> DataError:
    return DataError(
        f"{path} is neither a .npy file of the flat vector nor an .npz file of named parameters.",
        hint="`edgefl run weights` writes the former, numpy.savez the latter.",
    )


def _rebuild(manifest: ModelManifest, name: str) -> keras.Model:
    if manifest.custom_objects:
        raise UnsupportedModelError(
            f"{name} holds classes of your own ({', '.join(manifest.custom_objects)}), without their source.",
            hint=_BASE,
        )
    config = dict(manifest.keras_config)
    compiled = config.pop("compile_config", None)
    try:
        model = keras.saving.deserialize_keras_object(config)
    except Exception as error:
        first_line = next(iter(str(error).splitlines()), type(error).__name__)
        raise UnsupportedModelError(
            f"Keras {keras.__version__} cannot rebuild the model from {name} (made with Keras "
            f"{manifest.producer.get('keras', 'of an unknown version')}): {first_line}",
            hint=_BASE,
        ) from error
    names, own = PathNames(model), set(stable_names(model))
    frozen = [name for name in map(names, manifest.frozen) if name in own]
    if frozen:
        raise UnsupportedModelError(
            f"{name} holds {len(frozen)} frozen variables ({', '.join(frozen[:3])}{', …' if len(frozen) > 3 else ''}) "
            "only as constants of its graph.",
            hint=_BASE,
        )
    with contextlib.suppress(Exception):  # a loss or optimizer of one's own: the model is exported without
        model.compile_from_config(compiled)
    return model


def _match(model: keras.Model, manifest: ModelManifest) -> dict[str, Any]:
    """The model's variables by the manifest's names."""
    variables = dict(zip(stable_names(model), model.variables, strict=True))
    matched = {}
    for parameter in manifest.parameters:
        variable = variables.get(parameter.name)
        shape = None if variable is None else tuple(variable.shape)
        if shape != parameter.shape:
            raise ModelError(
                f"The base model does not fit: the file has {parameter.name!r} of shape {parameter.shape}, "
                f"the base model {'none' if shape is None else f'one of shape {shape}'}.",
                hint=_BASE,
            )
        matched[parameter.name] = variable
    return matched


def _keras_bytes(model: keras.Model, manifest: ModelManifest) -> bytes:
    with tempfile.TemporaryDirectory(prefix="edgefl-export-") as folder:
        path = Path(folder, "model.keras")
        try:
            model.save(path)
            return path.read_bytes()
        except OSError as error:
            raise storage_error(error, "write", path) from error


def _tflite_bytes(model: keras.Model, manifest: ModelManifest) -> bytes:
    """Inference with any number of rows, in float32, weights as constants."""
    specs = manifest.signatures["infer"].inputs
    keys = signature_keys(spec.name for spec in specs)
    outputs = signature_keys(manifest.outputs)
    structure = getattr(model, "_inputs_struct", None)

    def infer(*tensors: tf.Tensor) -> dict[str, tf.Tensor]:
        given = tensors[0] if len(tensors) == 1 else list(tensors)
        if structure is not None:
            given = keras.tree.pack_sequence_as(structure, list(tensors))
        returned = model(given, training=False) if model._call_has_training_arg else model(given)
        return dict(zip(outputs, keras.tree.flatten(returned), strict=True))

    signature = [
        tf.TensorSpec([None, *spec.shape[1:]], spec.dtype, name=key) for spec, key in zip(specs, keys, strict=True)
    ]
    function = tf.function(infer, autograph=False).get_concrete_function(*signature)
    converter = tf.lite.TFLiteConverter.from_concrete_functions([function], _Holder(model))
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS]
    try:
        data = bytes(converter.convert())
    except Exception as error:
        first_line = next(iter(str(error).splitlines()), type(error).__name__)
        raise UnsupportedModelError(
            f"TensorFlow cannot convert the model for inference: {first_line}", hint="Export it as .keras instead."
        ) from error
    findings = lint_inference(data)
    if findings:
        raise UnsupportedModelError(
            f"The inference model would not run everywhere: {' '.join(each.message for each in findings)}",
            hint="Export it as .keras instead.",
        )
    return data


class _Holder(tf.Module):  # type: ignore[misc]
    """The raw variables: TensorFlow saves those of a Keras model without their values."""

    def __init__(self, model: keras.Model) -> None:
        super().__init__()
        self.raw = [variable.value for variable in model.variables]
