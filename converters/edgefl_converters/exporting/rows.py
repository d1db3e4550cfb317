"""Rows of a model's inputs: from a calibration source, or made up."""

from __future__ import annotations

import difflib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edgefl.errors import DataError, InvalidSettingError
from edgefl.manifest import ModelManifest, TensorSpec
from edgefl.numpy_files import read_arrays
from edgefl_converters.models.sources.modules import attribute, call, is_reference

if TYPE_CHECKING:
    import keras

__all__ = ["Rows", "calibration_rows", "made_up_rows"]

Rows = dict[str, NDArray[Any]]
"""Arrays by the names of the model's inputs, rows first."""

_SOURCES = (
    "Give an .npz of rows by input name, an .npy for a model with one input, or module:function that returns them."
)
_MADE_UP = 32


def calibration_rows(calibration: Any, manifest: ModelManifest) -> Rows:
    """Reads and checks rows for calibration.

    Args:
        calibration: path of an ``.npz`` (rows by input name; ``x`` for the only input) or ``.npy``,
            ``"module:function"``, or what such a function returns: a mapping by input name, an array for the only
            input, or a sequence in the inputs' order. Targets and sample weights beside the inputs are left alone.
        manifest: of the model file.

    Raises:
        DataError: an input is missing, has no rows, or another shape or type; or a file is none of these.
        InvalidSettingError: it is none of these.
        StorageError: the file cannot be read.
    """
    specs = manifest.signatures["infer"].inputs
    name = "the calibration source"
    if isinstance(calibration, (str, os.PathLike)):
        name = str(calibration)
        calibration = _from(calibration)
    arrays = _by_name(calibration, specs, manifest, name)
    rows = {spec.name: _checked(arrays[spec.name], spec, name) for spec in specs}
    counts = {key: len(value) for key, value in rows.items()}
    if len(set(counts.values())) > 1:
        shown = ", ".join(f"{count} of {key!r}" for key, count in counts.items())
        raise DataError(f"{name}: expected as many rows of every input, got {shown}.")
    if not next(iter(counts.values())):
        raise DataError(
            f"{name} holds no rows.", hint="A few hundred rows that look like the devices' data are enough."
        )
    return rows


def made_up_rows(model: keras.Model, manifest: ModelManifest) -> Rows:
    """Rows that fit a model: normal numbers, tokens of the smallest vocabulary; the same ones every time."""
    import keras

    generator = np.random.default_rng(0)
    vocabulary = min(
        (each.input_dim for each in model._flatten_layers() if isinstance(each, keras.layers.Embedding)), default=2
    )
    rows: Rows = {}
    for spec in manifest.signatures["infer"].inputs:
        shape = (_MADE_UP, *spec.shape[1:])
        if spec.dtype.startswith("float"):
            rows[spec.name] = generator.standard_normal(shape).astype(spec.dtype)
        else:
            rows[spec.name] = generator.integers(0, vocabulary, shape).astype(spec.dtype)
    return rows


def _from(source: str | os.PathLike[str]) -> Any:
    path = Path(source)
    if isinstance(source, str) and is_reference(source) and not path.exists():
        return call(source, attribute(source))
    if path.suffix not in (".npz", ".npy"):
        raise InvalidSettingError(f"{path} is no calibration source.", hint=_SOURCES)
    return read_arrays(path, lambda error: _unreadable(path, error))


def _unreadable(path: Path, error: Exception) -> DataError:
    detail = "" if isinstance(error, OSError) else f": {error}"
    return DataError(f"{path} is not a readable {path.suffix} file{detail}.", hint=_SOURCES)


def _by_name(given: Any, specs: tuple[TensorSpec, ...], manifest: ModelManifest, name: str) -> Mapping[str, Any]:
    inputs = [spec.name for spec in specs]
    if not isinstance(given, Mapping):
        parts = list(given) if isinstance(given, (list, tuple)) and len(inputs) > 1 else [given]
        if len(parts) != len(inputs):
            raise DataError(
                f"{name}: expected rows of the {len(inputs)} inputs {', '.join(inputs)}, got {len(parts)} array.",
                hint="Give them by name.",
            )
        return dict(zip(inputs, parts, strict=True))
    if len(inputs) == 1 and inputs[0] not in given and "x" in given:
        given = {**{key: value for key, value in given.items() if key != "x"}, inputs[0]: given["x"]}
    beside = {*(target.name for target in manifest.targets), "y", "sample_weight"}
    unknown = [key for key in given if key not in inputs and key not in beside]
    missing = [key for key in inputs if key not in given]
    if missing or unknown:
        near = difflib.get_close_matches(missing[0], unknown, n=1) if missing else []
        raise DataError(
            f"{name}: expected rows of {', '.join(map(repr, inputs))}; missing: {missing or 'none'}, "
            f"unknown: {unknown or 'none'}.",
            hint=f"Is {near[0]!r} meant to be {missing[0]!r}?" if near else _SOURCES,
        )
    return dict(given)


def _checked(value: Any, spec: TensorSpec, name: str) -> NDArray[Any]:
    array = np.asarray(value)
    if array.ndim == 0 or array.shape[1:] != spec.shape[1:]:
        raise DataError(
            f"{name}: {spec.name!r} expects rows of shape {spec.shape[1:]}, got an array of shape {array.shape}.",
            hint="The first dimension counts the rows.",
        )
    fits = "iuf" if spec.dtype.startswith("float") else "b" if spec.dtype == "bool" else "iu"
    if array.dtype.kind not in fits:
        raise DataError(f"{name}: {spec.name!r} expects {spec.dtype}, got {array.dtype}.")
    array = array.astype(spec.dtype)
    if spec.dtype.startswith("float") and not np.all(np.isfinite(array)):
        raise DataError(f"{name}: {spec.name!r} holds values that are not finite.")
    return array
