"""A model's variables: in and out by name, as a list in Keras's order, or as one flat vector."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from edgefl.errors import DataError, listed
from edgefl.manifest import ModelManifest, TensorSpec
from edgefl_device_runtime.training.interpreter import Arrays, Interpreter

__all__ = ["Parameters", "State"]

Named = dict[str, NDArray[Any]]


class _Exchange:
    """A pair of signatures that read and write the same named variables."""

    def __init__(self, interpreter: Interpreter, manifest: ModelManifest, what: str) -> None:
        self._interpreter = interpreter
        self._get, self._set = f"get_{what}", f"set_{what}"
        self._read: tuple[TensorSpec, ...] = manifest.signatures[self._get].outputs
        self._written = {spec.name: spec for spec in manifest.signatures[self._set].inputs}

    def tensors(self) -> Arrays:
        """All variables under the names of the tensors."""
        return self._interpreter.signature(self._get)({})

    def get(self) -> Named:
        """All variables by name, each a new array."""
        tensors = self.tensors()
        return {spec.name: tensors[spec.tensor].reshape(spec.shape) for spec in self._read}

    def set(self, arrays: Mapping[str, ArrayLike]) -> None:
        """Writes all variables; nothing is written when one does not fit.

        Raises:
            DataError: a name is missing or unknown, or a shape, type or value does not fit.
        """
        missing = [name for name in self._written if name not in arrays]
        unknown = [name for name in arrays if name not in self._written]
        if missing or unknown:
            raise DataError(
                f"Expected {len(self._written)} named arrays; missing: {listed(missing)}, unknown: {listed(unknown)}.",
                hint=f"Take them from {self._get}() of the same model; `edgefl inspect` lists the names.",
            )
        inputs = {spec.tensor: _fit(spec, arrays[name]) for name, spec in self._written.items()}
        self._interpreter.signature(self._set)(inputs)


class Parameters(_Exchange):
    """Weights and statistics."""

    def __init__(self, interpreter: Interpreter, manifest: ModelManifest) -> None:
        super().__init__(interpreter, manifest, "weights")
        self._names = [parameter.name for parameter in manifest.parameters]
        self._layout = manifest.layout
        self._tensors = {spec.name: spec.tensor for spec in self._read}
        self._local = tuple(parameter.name for parameter in manifest.local_parameters)

    def get_list(self) -> list[NDArray[np.float32]]:
        """The parameters in the order of the Keras model's variables."""
        named = self.get()
        return [named[name] for name in self._names]

    def set_any(self, weights: Sequence[ArrayLike] | Mapping[str, ArrayLike] | NDArray[Any]) -> None:
        """Writes the parameters from a list in Keras's order, or by name."""
        if isinstance(weights, Mapping):
            self.set(weights)
            return
        if isinstance(weights, np.ndarray) or len(weights) != len(self._names):
            got = f"one array of shape {weights.shape}" if isinstance(weights, np.ndarray) else f"{len(weights)} arrays"
            raise DataError(
                f"Expected a list of {len(self._names)} arrays, one for each of {listed(self._names)}; got {got}.",
                hint="Frozen variables are constants of the graph, not in the list. A flat vector goes to `weights`.",
            )
        self.set(dict(zip(self._names, weights, strict=True)))

    def vector(self) -> NDArray[np.float32]:
        """The shared parameters as a new flat vector."""
        tensors = self.tensors()
        vector = np.empty(self._layout.size, np.float32)
        for name, view in self._layout.views(vector).items():
            view[...] = tensors[self._tensors[name]].reshape(view.shape)
        return vector

    def set_vector(self, vector: ArrayLike) -> None:
        """Writes the shared parameters; those that stay on the device are left as they are."""
        array = np.asarray(vector)
        if array.dtype.kind == "f":
            array = np.ascontiguousarray(array, np.float32)
        local = self.get() if self._local else {}
        views = self._layout.views(self._layout.check(array))
        self.set({**local, **views})

    def local(self) -> Named:
        """The parameters that stay on the device, by name."""
        if not self._local:
            return {}
        named = self.get()
        return {name: named[name] for name in self._local}

    def set_local(self, arrays: Mapping[str, ArrayLike]) -> None:
        """Writes the parameters that stay on the device; the shared ones are left as they are."""
        missing = [name for name in self._local if name not in arrays]
        unknown = [name for name in arrays if name not in self._local]
        if missing or unknown:
            raise DataError(
                f"Expected the {len(self._local)} parameters that stay on the device; missing: "
                f"{listed(missing)}, unknown: {listed(unknown)}.",
                hint="Take them from `local_parameters` of the same model.",
            )
        if self._local:
            self.set({**self.get(), **arrays})


class State(_Exchange):
    """Everything that training changes: parameters, optimizer slots and counters."""

    def __init__(self, interpreter: Interpreter, manifest: ModelManifest) -> None:
        super().__init__(interpreter, manifest, "state")


def _fit(spec: TensorSpec, value: ArrayLike) -> NDArray[Any]:
    array = np.asarray(value)
    # The interpreter takes no rank-0 input: a scalar variable travels as [1].
    if array.shape != spec.shape and not (array.size == 1 and spec.shape in ((), (1,)) and array.ndim <= 1):
        raise DataError(f"{spec.name!r} expects shape {spec.shape}, got {array.shape}.")
    dtype = np.dtype(spec.dtype)
    if array.dtype.kind not in "biuf" or not np.can_cast(array.dtype, dtype, "same_kind"):
        raise DataError(f"{spec.name!r} expects {dtype.name}, got {array.dtype}.")
    if dtype.kind != "f":
        # Not ascontiguousarray: on 32-bit ARM it hands on C ints, which equal int32 and which the interpreter refuses.
        exact = np.empty(spec.shape, dtype)
        exact[...] = array.reshape(spec.shape)
        return exact
    array = np.ascontiguousarray(array, dtype).reshape(spec.shape)
    if not np.isfinite(array).all():
        raise DataError(f"{spec.name!r} must be finite, got NaN or infinity.", hint="Training has diverged somewhere.")
    return array
