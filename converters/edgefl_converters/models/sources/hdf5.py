"""Whole models in HDF5 files (``.h5``), as Keras 2 and 3 write them."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import h5py
import keras
from keras.src.legacy.saving import legacy_h5_format, saving_options, saving_utils
from keras.src.saving.saving_lib import safe_get_h5_group
from keras.src.saving.serialization_lib import SafeModeScope

from edgefl.errors import ModelError
from edgefl_converters.models.adapter_layers import restore_alphas
from edgefl_converters.models.sources.keras_2.compiling import compile_as_configured, decode
from edgefl_converters.models.sources.keras_2.hdf5_weights import give_weights
from edgefl_converters.models.sources.keras_2.rebuilding import rebuild
from edgefl_converters.models.sources.keras_2.spelling import before_keras_3

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
        described = decode(config)
        weights = safe_get_h5_group(file, "model_weights")
        if before_keras_3(version):
            rebuilt = rebuild(described)
            model = rebuilt.model
            give_weights(rebuilt, weights, str(path))
        else:
            model = _of_keras_3(described)
            restore_alphas(model, described)
            legacy_h5_format.load_weights_from_hdf5_group(weights, model)
        training = file.attrs.get("training_config")
        if training is not None:
            compile_as_configured(model, decode(training), version)
    return model


def _of_keras_3(described: Any) -> keras.Model:
    with saving_options.keras_option_scope(use_legacy_config=True), SafeModeScope(True):
        return saving_utils.model_from_config(copy.deepcopy(described))


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value
