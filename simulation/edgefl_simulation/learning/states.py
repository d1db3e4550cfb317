"""The state of a learning process between two rounds: plain arrays, which can be kept, sent and put into Keras."""

from __future__ import annotations

import io
import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from edgefl.atomic import write_bytes
from edgefl.damaged_arrays import DAMAGED
from edgefl.errors import DataError, storage_error
from edgefl_server.aggregation import StrategyState

__all__ = ["KerasWeights", "Place", "ServerState"]

_SLOT, _FIXED, _WEIGHTS, _ABOUT = "slot/", "fixed/", "weights", "about"
_FORMAT = "edgefl-learning-state"


@dataclass(frozen=True)
class Place:
    """One of a Keras model's weights.

    Attributes:
        name: in the model file.
        shape: dimensions.
        start: its first element in the vector of what is trained together; -1: it is not among these.
    """

    name: str
    shape: tuple[int, ...]
    start: int


@dataclass(frozen=True, eq=False, repr=False)
class KerasWeights:
    """All weights of a Keras model, in the order of its ``get_weights``, as places in one vector.

    Attributes:
        places: in that order.
        fixed: the weights that are not trained together, by name.
    """

    places: tuple[Place, ...]
    fixed: Mapping[str, NDArray[Any]] = field(default_factory=dict)

    def __repr__(self) -> str:
        return f"<KerasWeights: {len(self.places)} arrays, {len(self.fixed)} of them not trained>"

    def arrays(self, vector: NDArray[np.float32]) -> list[NDArray[Any]]:
        """The weights as Keras takes them, as new arrays."""
        found = []
        for place in self.places:
            part = vector[place.start : place.start + math.prod(place.shape)]
            found.append(np.array(self.fixed[place.name] if place.start < 0 else part.reshape(place.shape)))
        return found

    def differs(self, other: KerasWeights) -> str:
        """The name of a weight that is not trained and is another one there; empty: there is none."""
        if self.fixed is other.fixed:
            return ""
        return next((name for name in other.fixed if not self._has(name, other.fixed[name])), "")

    def _has(self, name: str, array: NDArray[Any]) -> bool:
        return name in self.fixed and np.array_equal(self.fixed[name], array)

    def vector(self, weights: Sequence[ArrayLike], size: int) -> NDArray[np.float32]:
        """The vector of weights as Keras has them.

        Args:
            weights: as ``get_weights`` returns them.
            size: elements of the vector.

        Raises:
            DataError: they are not this model's, are not finite, or one that is not trained has another value.
        """
        if len(weights) != len(self.places):
            raise DataError(f"The model has {len(self.places)} weights, got {len(weights)}.")
        vector = np.empty(size, np.float32)
        for place, given in zip(self.places, weights, strict=True):
            array = np.asarray(given)
            if array.shape != place.shape:
                raise DataError(f"The weight {place.name!r} expects shape {place.shape}, got {array.shape}.")
            if place.start >= 0:
                vector[place.start : place.start + array.size] = array.ravel()
            elif not self._has(place.name, array):
                raise DataError(
                    f"The weight {place.name!r} is not trained and has another value in the model.",
                    hint="Let model_fn return a model with these weights.",
                )
        if not np.isfinite(vector).all():
            raise DataError("The weights have NaN or infinity.", hint="Training diverged; take an earlier state.")
        return vector


@dataclass(frozen=True, eq=False)
class ServerState:
    """The state of a learning process: it is never changed, every round makes a new one.

    It can be pickled; `save` and `to_bytes` are for files and messages that others shall be able to read.

    Attributes:
        round: how many rounds are behind it.
        strategy: the weights as one vector, and what the server optimizer remembers; read-only arrays.
        keras: the way from there to Keras.
        layout_hash: of the model, so that states of others are noticed.
    """

    round: int
    strategy: StrategyState
    keras: KerasWeights
    layout_hash: str

    def __post_init__(self) -> None:
        for array in (self.strategy.weights, *self.strategy.slots.values(), *self.keras.fixed.values()):
            array.setflags(write=False)

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self.__post_init__()  # pickled arrays come back writable

    def __repr__(self) -> str:
        return f"ServerState(round={self.round}, {self.strategy.weights.size} parameters)"

    @property
    def weights(self) -> list[NDArray[Any]]:
        """All weights of the Keras model, for ``model.set_weights``: trained, moving averages, frozen; new arrays."""
        return self.keras.arrays(self.strategy.weights)

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """The state as named arrays: ``numpy.savez(file, **state.to_arrays())`` keeps it."""
        about = {
            "format": _FORMAT,
            "round": self.round,
            "weight_size": self.strategy.weight_size,
            "layout_hash": self.layout_hash,
            "places": [[place.name, list(place.shape), place.start] for place in self.keras.places],
        }
        return {
            _WEIGHTS: self.strategy.weights,
            **{_SLOT + name: array for name, array in self.strategy.slots.items()},
            **{_FIXED + name: array for name, array in self.keras.fixed.items()},
            _ABOUT: np.frombuffer(json.dumps(about, sort_keys=True).encode(), np.uint8),
        }

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> ServerState:
        """The state of what `to_arrays` returned, or `numpy.load` of a file of it.

        Raises:
            DataError: it is something else.
        """
        try:
            about = json.loads(arrays[_ABOUT].tobytes())
            if about["format"] != _FORMAT:
                raise ValueError(f"format {about['format']!r}")
            places = tuple(Place(name, tuple(shape), start) for name, shape, start in about["places"])
            named = {name: np.array(arrays[name]) for name in arrays}
            slots, fixed = (
                {name[len(prefix) :]: array for name, array in named.items() if name.startswith(prefix)}
                for prefix in (_SLOT, _FIXED)
            )
            strategy = StrategyState(named[_WEIGHTS], about["weight_size"], slots)
            return cls(about["round"], strategy, KerasWeights(places, fixed), about["layout_hash"])
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise DataError(
                f"Expected the state of a learning process, got something else: {error}.",
                hint="Give what ServerState.save, to_bytes or to_arrays made.",
            ) from error

    def to_bytes(self) -> bytes:
        """The state as the bytes of an ``.npz``; equal states give equal bytes."""
        buffer = io.BytesIO()
        np.savez(buffer, **self.to_arrays())
        return buffer.getvalue()

    @classmethod
    def from_bytes(cls, data: bytes) -> ServerState:
        """The state of what `to_bytes` returned; nothing in it is executed.

        Raises:
            DataError: it is something else, or damaged.
        """
        try:
            with np.load(io.BytesIO(data), allow_pickle=False) as archive:
                arrays = {name: archive[name] for name in archive.files}
        except (*DAMAGED, OSError, LookupError, AttributeError) as error:
            raise DataError(f"Expected the state of a learning process, got something else: {error}.") from error
        return cls.from_arrays(arrays)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes a file, whole or not at all.

        Raises:
            StorageError: it cannot be written.
        """
        write_bytes(Path(path), self.to_bytes())

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> ServerState:
        """Reads a file that `save` wrote.

        Raises:
            StorageError: it cannot be read.
            DataError: it is something else, or damaged.
        """
        try:
            data = Path(path).read_bytes()
        except OSError as error:
            raise storage_error(error, "read", Path(path)) from error
        return cls.from_bytes(data)
