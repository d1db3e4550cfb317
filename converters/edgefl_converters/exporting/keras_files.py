"""Ordinary ``.keras`` files, and those that keep LoRA adapters apart."""

from __future__ import annotations

import tempfile
import zipfile
from pathlib import Path

import keras

from edgefl.errors import storage_error
from edgefl.manifest import ModelManifest
from edgefl.weight_files import NamedArrays
from edgefl_converters.exporting.original_models import Original, copy_without_adapters, weights_by_name
from edgefl_converters.models.adapter_layers import ENTRY, enable, entry, train_only

__all__ = ["keras_bytes", "keras_bytes_with_adapters"]


def keras_bytes(model: keras.Model) -> bytes:
    """Returns what Keras writes of a model."""
    with tempfile.TemporaryDirectory(prefix="edgefl-export-") as folder:
        path = Path(folder, "model.keras")
        try:
            model.save(path)
            return path.read_bytes()
        except OSError as error:
            raise storage_error(error, "write", path) from error


def keras_bytes_with_adapters(original: Original, manifest: ModelManifest, values: NamedArrays) -> bytes:
    """A ``.keras`` file whose layers have adapters, which Keras merges into its own entries, and an entry with them.

    Args:
        original: with the weights that are not among the values; left as it is.
        manifest: of the model file.
        values: of all parameters, and perhaps of frozen variables.
    """
    adapted = copy_without_adapters(original.model)
    enable(adapted, original.adapters)
    for name, variable in weights_by_name(adapted).items():
        if name in values:
            variable.assign(values[name])
    trained = [parameter.name for parameter in manifest.parameters]
    train_only(adapted, trained)
    with tempfile.TemporaryDirectory(prefix="edgefl-export-") as folder:
        path = Path(folder, "model.keras")
        try:
            path.write_bytes(keras_bytes(adapted))
            with zipfile.ZipFile(path, "a") as archive:
                # A fixed date: the same weights give the same entry.
                archive.writestr(zipfile.ZipInfo(ENTRY), entry(adapted, original.adapters, trained))
            return path.read_bytes()
        except OSError as error:
            raise storage_error(error, "write", path) from error
