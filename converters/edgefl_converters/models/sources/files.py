"""Tells which kind of file or folder a path is, and reads the Keras model in it. No code is run from a file."""

from __future__ import annotations

import warnings
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgefl.damaged_arrays import DAMAGED
from edgefl.errors import EdgeflError, ModelError, first_line, storage_error
from edgefl_converters.models.sources.keras_errors import cause, class_in_the_making, unknown_name
from edgefl_converters.models.sources.nearest_names import classes, nearest

if TYPE_CHECKING:
    import keras

__all__ = ["SOURCES", "read_model"]

SOURCES = (
    "Give a .keras or .h5 file, a SavedModel folder of a Keras model, module:function that returns a model, "
    "or a Keras model object."
)
_RESAVE = "Load it with the code that made it and save it again with model.save('model.keras')."
_SOURCE_NEEDED = (
    "Name the module that defines it (`custom_objects`), or give module:function that builds the model "
    "instead of a file."
)


def read_model(path: Path) -> keras.Model:
    """Reads a ``.keras`` file, an HDF5 file of a whole model, or a SavedModel folder of a Keras model.

    Raises:
        ModelError: it is something else, or Keras cannot load it; says what it is where that can be seen.
        StorageError: it cannot be read.
    """
    import keras

    kind = _kind(path)
    try:
        with warnings.catch_warnings():
            # The optimizer's state is not converted: training on devices starts with a fresh one.
            warnings.filterwarnings("ignore", "Skipping variable loading for optimizer")
            # What Keras 2 wrote into the first layer of a Sequential model.
            warnings.filterwarnings("ignore", "Do not pass an `input_shape`")
            model = _READERS[kind](path)
    except EdgeflError:
        raise
    except Exception as error:
        raise _refusal(path, error) from error
    if not isinstance(model, keras.Model):
        raise ModelError(f"{path} holds {type(model).__name__}, expected a Keras model.", hint=SOURCES)
    return model


def _keras_file(path: Path) -> Any:
    import keras

    from edgefl_converters.models.adapter_layers import restore
    from edgefl_converters.models.sources.keras_2.archives import is_of_keras_2, read_archive
    from edgefl_converters.models.sources.keras_2.registered import REGISTERED

    if is_of_keras_2(path):
        return read_archive(path)
    model = keras.saving.load_model(path, custom_objects=REGISTERED)
    return restore(model, path) if isinstance(model, keras.Model) else model


def _hdf5(path: Path) -> Any:
    from edgefl_converters.models.sources.hdf5 import read_hdf5

    return read_hdf5(path)


def _saved_model(path: Path) -> Any:
    from edgefl_converters.models.sources.saved_models import read_saved_model

    return read_saved_model(path)


_READERS = {"keras": _keras_file, "hdf5": _hdf5, "saved_model": _saved_model}


def _kind(path: Path) -> str:
    if path.is_dir():
        if (path / "saved_model.pb").exists():
            return "saved_model"
        raise ModelError(f"{path} is a folder, expected a Keras model. {_RESAVE}", hint=SOURCES)
    try:
        with path.open("rb") as file:
            start = file.read(8)
    except FileNotFoundError as error:
        raise ModelError(f"There is no file {path}.", hint=SOURCES) from error
    except OSError as error:
        raise storage_error(error, "read", path) from error
    if start == b"\x89HDF\r\n\x1a\n":
        return "hdf5"
    if start[4:8] == b"TFL3":
        raise ModelError(
            f"{path} is a TFLite file already, expected a Keras model.", hint="Convert the Keras model it came from."
        )
    if "config.json" not in _entries(path):
        raise ModelError(f"{path} is not a Keras model file.", hint=SOURCES)
    if path.suffix != ".keras":
        raise ModelError(f"{path} must have a name that ends in .keras for Keras to load it.", hint="Rename it.")
    return "keras"


def _entries(path: Path) -> list[str]:
    """The names in an archive; none where it is none, or damaged."""
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.namelist()
    except DAMAGED:
        return []


def _refusal(path: Path, error: Exception) -> ModelError:
    unknown = unknown_name(error)
    if unknown is not None:
        near = nearest(unknown, classes(), cutoff=0.75)
        hint = f"Did you mean {near!r}? {_SOURCE_NEEDED}" if near else _SOURCE_NEEDED
        return ModelError(f"{path} uses {unknown}, which Keras does not know.", hint=hint)
    if "Lambda" in str(error) or "safe_mode" in str(error):
        return ModelError(
            f"{path} holds Python code (a Lambda layer), which is not run from a file.",
            hint="Give module:function that builds the model, or replace the Lambda by a layer class.",
        )
    made, told = class_in_the_making(error), first_line(cause(error))
    return ModelError(f"Keras cannot load {path}: {told if made is None else f'{made}: {told}'}", hint=_RESAVE)
