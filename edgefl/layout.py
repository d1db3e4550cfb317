"""The layout: where each parameter lies in the one flat vector that is trained, sent and merged."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike, NDArray

from edgefl.errors import DataError, ModelFileError
from edgefl.hashing import canonical_json, sha256

__all__ = ["ROLES", "Parameter", "ParameterLayout"]

ROLES = ("weight", "statistic")


@dataclass(frozen=True)
class Parameter:
    """One named array of a model.

    Attributes:
        name: unique and stable: the Keras path without the model's own name and process-wide counters.
        keras_path: Keras's path of the variable, without the model's own name and the process's counters.
        shape: dimensions; ``()`` for a scalar.
        role: ``weight`` (changed by the gradient) or ``statistic`` (changed by the forward pass: moving averages).
        shared: False for a parameter that never leaves the device.
        buffer: index of the flatbuffer buffer that holds the initial value in the model file.
        dtype: ``float32``, the only type that is trained today.
    """

    name: str
    keras_path: str
    shape: tuple[int, ...]
    role: str = "weight"
    shared: bool = True
    buffer: int = 0
    dtype: str = "float32"

    def __post_init__(self) -> None:
        if self.role not in ROLES:
            raise ModelFileError(f"Parameter {self.name!r} has role {self.role!r}, expected one of {', '.join(ROLES)}.")
        if self.dtype != "float32":
            raise ModelFileError(f"Parameter {self.name!r} has dtype {self.dtype!r}, expected 'float32'.")

    @property
    def size(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)


class ParameterLayout:
    """The order of a model's shared parameters in one contiguous float32 vector.

    The section of role ``weight`` comes first, then ``statistic``; inside a section the parameters keep the order
    in which they were given, which is the order of the Keras model's variables.

    Args:
        parameters: all parameters of a model; those that are not shared are left out of the vector.

    Raises:
        ModelFileError: two parameters have the same name.
    """

    def __init__(self, parameters: Sequence[Parameter]) -> None:
        shared = [parameter for parameter in parameters if parameter.shared]
        self.parameters: tuple[Parameter, ...] = tuple(
            parameter for role in ROLES for parameter in shared if parameter.role == role
        )
        names = [parameter.name for parameter in parameters]
        if len(set(names)) != len(names):
            repeated = sorted({name for name in names if names.count(name) > 1})
            raise ModelFileError(f"Parameter names must be unique, got {', '.join(repeated)} more than once.")

    def __iter__(self) -> Iterator[Parameter]:
        return iter(self.parameters)

    def __len__(self) -> int:
        return len(self.parameters)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ParameterLayout) and self.hash == other.hash

    def __hash__(self) -> int:
        return hash(self.hash)

    def __repr__(self) -> str:
        return f"ParameterLayout({len(self)} parameters, {self.size} elements)"

    @property
    def names(self) -> tuple[str, ...]:
        """The parameters' names, in the order of the vector."""
        return tuple(parameter.name for parameter in self.parameters)

    @cached_property
    def weight_size(self) -> int:
        """Elements of the section of role ``weight``, which starts at 0."""
        return sum(parameter.size for parameter in self.parameters if parameter.role == "weight")

    @property
    def statistic_size(self) -> int:
        """Elements of the section of role ``statistic``, which follows."""
        return self.size - self.weight_size

    @cached_property
    def size(self) -> int:
        """Elements of the whole vector."""
        return sum(parameter.size for parameter in self.parameters)

    @cached_property
    def hash(self) -> str:
        """SHA-256 over names, shapes, types and roles in order: two models with equal hashes can be merged."""
        description = [
            [parameter.name, list(parameter.shape), parameter.dtype, parameter.role] for parameter in self.parameters
        ]
        return sha256(canonical_json(description))

    @cached_property
    def offsets(self) -> dict[str, int]:
        """The elements at which the parameters start."""
        offsets, offset = {}, 0
        for parameter in self.parameters:
            offsets[parameter.name] = offset
            offset += parameter.size
        return offsets

    def check(self, vector: NDArray[np.float32]) -> NDArray[np.float32]:
        """Returns the vector if it has this layout's shape and type.

        Raises:
            DataError: it has not.
        """
        if vector.shape != (self.size,) or vector.dtype != np.float32:
            raise DataError(
                f"Expected a float32 vector of shape ({self.size},), got {vector.dtype} {vector.shape}.",
                hint="Weights belong to one layout; take them from a model with the same parameters.",
            )
        return vector

    def views(self, vector: NDArray[np.float32]) -> dict[str, NDArray[np.float32]]:
        """Names the parts of a vector, without copying.

        Args:
            vector: shape ``[size]``, float32.

        Returns:
            Parameter name to a view of the parameter's shape.

        Raises:
            DataError: the vector has another shape or type.
        """
        self.check(vector)
        return {
            parameter.name: vector[offset : offset + parameter.size].reshape(parameter.shape)
            for parameter, offset in zip(self.parameters, self.offsets.values(), strict=True)
        }

    def pack(self, arrays: Mapping[str, ArrayLike]) -> NDArray[np.float32]:
        """Lays named arrays into a new vector.

        Args:
            arrays: one array for every parameter of the layout, and no other.

        Raises:
            DataError: a parameter is missing, unknown, or of another shape.
        """
        missing = [name for name in self.names if name not in arrays]
        unknown = [name for name in arrays if name not in self.offsets]
        if missing or unknown:
            raise DataError(
                f"Expected the {len(self)} parameters of the layout; missing: {_few(missing)}, "
                f"unknown: {_few(unknown)}.",
                hint="Weights belong to one layout; take them from a model with the same parameters.",
            )
        vector = np.empty(self.size, np.float32)
        for name, view in self.views(vector).items():
            value = np.asarray(arrays[name])
            if value.shape != view.shape:
                raise DataError(f"Parameter {name!r} expects shape {view.shape}, got {value.shape}.")
            view[...] = value
        return vector


def _few(names: Sequence[str]) -> str:
    """The first names of a list that may be long."""
    if not names:
        return "none"
    return str(list(names)) if len(names) <= 3 else f"{list(names[:3])} and {len(names) - 3} more"
