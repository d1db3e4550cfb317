"""Whole models in HDF5 files (``.h5``), as Keras 2 and 3 write them."""

from __future__ import annotations

from pathlib import Path

import h5py
import keras
from keras.src.legacy.saving import legacy_h5_format
from keras.src.saving.saving_lib import safe_get_h5_group

from edgefl.errors import ModelError
from edgefl_converters.models.adapter_layers import restore_alphas
from edgefl_converters.models.sources import legacy

__all__ = ["read_hdf5"]


def read_hdf5(path: Path) -> keras.Model:
    """Reads a model with its weights, compiled if it was when it was saved; its optimizer's state is left.

    Raises:
        ModelError: the file holds weights only, or is damaged.
        Exception: of any kind, Keras's own: it cannot build the model.
    """
    try:
        file = h5py.File(path, "r")
    except OSError as error:
        raise ModelError(f"{path} cannot be read as an HDF5 file: {error}.", hint="Copy it again.") from error
    with file:
        config = file.attrs.get("model_config")
        if config is None:
            raise ModelError(
                f"{path} holds weights only, expected a whole model.",
                hint="Give module:function that builds the model, calls load_weights on it and returns it.",
            )
        version = _text(file.attrs.get("keras_version", "1."))
        described = legacy.decode(config)
        model = legacy.model_from(described, version)
        restore_alphas(model, described)
        legacy_h5_format.load_weights_from_hdf5_group(safe_get_h5_group(file, "model_weights"), model)
        training = file.attrs.get("training_config")
        if training is not None:
            legacy.compile_as_configured(model, legacy.decode(training), version)
    return model


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value
