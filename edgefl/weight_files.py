"""Weights by name in ``.safetensors`` and ``.npz`` files, and from them and from flat vectors (``.npy``)."""

from __future__ import annotations

import importlib
import io
import os
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from edgefl.errors import DataError
from edgefl.model_file import ModelFile
from edgefl.numpy_files import read_arrays
from edgefl.parts import Part, needing

__all__ = ["NamedArrays", "Weights", "npz_bytes", "read_weights", "safetensors_bytes"]

Weights = str | os.PathLike[str] | Mapping[str, ArrayLike] | NDArray[np.float32] | None
NamedArrays = dict[str, NDArray[np.float32]]

_SAFETENSORS = Part("safetensors", "convert")
"""A device that reads no such file does without."""


def read_weights(source: ModelFile, weights: Weights, *, frozen: Collection[str] = ()) -> NamedArrays:
    """Every parameter of a model file by name, with trained weights where there are some.

    Args:
        source: the model file; parameters that never leave a device keep its values unless they are given.
        weights: a ``.npy`` of the flat vector as `edgefl run weights` writes it, an ``.npz`` or ``.safetensors`` of
            named parameters, the same as an array or a mapping, or None.
        frozen: names of other variables of the model, which named weights may hold too.

    Raises:
        DataError: they belong to another layout, or the file holds none.
        StorageError: the file cannot be read.
    """
    manifest = source.manifest
    values = {parameter.name: np.array(source.initial_value(parameter)) for parameter in manifest.parameters}
    if weights is None:
        return values
    if isinstance(weights, (str, os.PathLike)):
        weights = _read_file(Path(weights))
    if isinstance(weights, Mapping):
        local = {parameter.name: parameter for parameter in manifest.parameters if not parameter.shared}
        given = {name: np.asarray(value) for name, value in weights.items()}
        vector = manifest.layout.pack(
            {name: value for name, value in given.items() if name not in local and name not in frozen}
        )
        for name, value in given.items():
            if name in local and value.shape != local[name].shape:
                raise DataError(f"Parameter {name!r} expects shape {local[name].shape}, got {value.shape}.")
            if name in local or name in frozen:
                values[name] = value.astype(np.float32)
    else:
        vector = manifest.layout.check(weights)
    values.update(manifest.layout.views(vector))
    if not all(np.all(np.isfinite(value)) for value in values.values()):
        raise DataError("The weights hold values that are not finite.", hint="Take the weights of an earlier round.")
    return values


def npz_bytes(arrays: NamedArrays) -> bytes:
    """The content of an ``.npz`` file; the same arrays give the same bytes."""
    stream = io.BytesIO()
    named: Mapping[str, Any] = arrays
    np.savez(stream, **named)
    return stream.getvalue()


def safetensors_bytes(arrays: NamedArrays) -> bytes:
    """The content of a ``.safetensors`` file."""
    with needing(_SAFETENSORS):
        from safetensors.numpy import save

    return bytes(save({name: np.ascontiguousarray(value) for name, value in arrays.items()}, {"format": "np"}))


def _read_file(path: Path) -> dict[str, NDArray[Any]] | NDArray[Any]:
    load: Callable[[Path], Any] = np.load
    if path.suffix == ".safetensors":
        with needing(_SAFETENSORS):
            importlib.import_module("safetensors.numpy")
        load = _load_safetensors
    return read_arrays(path, lambda error: _no_weights(path), load)


def _load_safetensors(path: Path) -> dict[str, NDArray[Any]]:
    from safetensors.numpy import load

    return dict(load(path.read_bytes()))


def _no_weights(path: Path) -> DataError:
    return DataError(
        f"{path} is neither a .npy file of the flat vector nor an .npz or .safetensors file of named parameters.",
        hint="`edgefl run weights` writes the first, `edgefl export` the others.",
    )
