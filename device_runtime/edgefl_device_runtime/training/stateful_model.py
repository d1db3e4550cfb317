"""Everything that training changes, in and out: the half of `TrainableModel` that knows no data."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from edgefl.manifest import ModelManifest
from edgefl_device_runtime.training.interpreter import Interpreter
from edgefl_device_runtime.training.optimizer import Optimizer
from edgefl_device_runtime.training.pages import release_pages
from edgefl_device_runtime.training.parameters import Parameters, State
from edgefl_device_runtime.training.sizes import Sizes
from edgefl_device_runtime.training.summary import summary_of
from edgefl_device_runtime.training.weight_files import read_weights, write_weights

__all__ = ["StatefulModel"]

_CALLS = "edgefl/train_on_batch_calls"
_RATE = "edgefl/learning_rate"
_SMALL_STATE = 1 << 10
"""Values of optimizer state (counters, no slots) up to which resetting a fresh optimizer costs nothing."""


class StatefulModel:
    """A loaded model's weights, statistics and optimizer state.

    Args:
        interpreter: the loaded model.
        manifest: its manifest.
        unread: path of the file of which nothing has been read through the interpreter yet; None for bytes.

    Attributes:
        manifest: what the file says about itself.
        optimizer: by which the learning rate is read and set.
    """

    def __init__(
        self, interpreter: Interpreter, manifest: ModelManifest, unread: str | os.PathLike[str] | None
    ) -> None:
        self.manifest = manifest
        self._interpreter = interpreter
        self._parameters = Parameters(interpreter, manifest)
        self._state = State(interpreter, manifest)
        self._sizes = Sizes(interpreter, manifest)
        self.optimizer = Optimizer(manifest, self._sizes.set_learning_rate)
        self._calls = 0
        self._unread = unread
        if sum(math.prod(each.shape) for each in manifest.state) < _SMALL_STATE:
            self.reset_optimizer()

    def get_weights(self) -> list[NDArray[np.float32]]:
        """Returns weights and statistics as new arrays, ordered as the Keras model's variables, without frozen ones."""
        return self._parameters.get_list()

    def set_weights(self, weights: Sequence[ArrayLike] | Mapping[str, ArrayLike]) -> None:
        """Sets all weights and statistics from a list as `get_weights` returns it, or from a dict by name.

        Raises:
            DataError: a name, shape or type does not fit, or a number is not finite. Nothing is set then.
        """
        self._parameters.set_any(weights)

    @property
    def weights(self) -> NDArray[np.float32]:
        """The shared parameters as one new flat vector, shape ``[manifest.layout.size]``; assign one to set them."""
        return self._parameters.vector()

    @weights.setter
    def weights(self, vector: ArrayLike) -> None:
        self._parameters.set_vector(vector)

    def delta(self, since: NDArray[np.float32]) -> NDArray[np.float32]:
        """Returns what training has changed: the weights now minus `since`.

        Args:
            since: an earlier value of `weights`.

        Returns:
            A new flat vector, first the section of weights (``[: manifest.layout.weight_size]``), then the statistics.

        Raises:
            DataError: `since` is not a vector of this model.
        """
        self.manifest.layout.check(since)
        now = self.weights
        return np.subtract(now, since, out=now)

    @property
    def local_parameters(self) -> dict[str, NDArray[np.float32]]:
        """The parameters that never leave the device, by name, as new arrays; assign such a dict to set them."""
        return self._parameters.local()

    @local_parameters.setter
    def local_parameters(self, arrays: Mapping[str, ArrayLike]) -> None:
        self._parameters.set_local(arrays)

    def get_state(self) -> dict[str, NDArray[Any]]:
        """Returns everything that training changes, by name: ``numpy.savez(file, **state)`` keeps it."""
        state = self._state.get()
        if self.manifest.draws_random_numbers:
            state[_CALLS] = np.array(self._calls, np.int64)
        if self.optimizer.learning_rate != self.manifest.learning_rate:
            state[_RATE] = np.array(self.optimizer.learning_rate, np.float64)
        return state

    def set_state(self, state: Mapping[str, ArrayLike]) -> None:
        """Restores what `get_state` returned; training then goes on to the same bits.

        Args:
            state: a dict, or what ``numpy.load`` returns for an ``.npz``.

        Raises:
            DataError: a name, shape or type does not fit, or a number is not finite. Nothing is set then.
        """
        arrays = dict(state)
        calls = arrays.pop(_CALLS, 0) if self.manifest.draws_random_numbers else 0
        rate = arrays.pop(_RATE, None)
        self._state.set(arrays)
        self._calls = int(np.asarray(calls))
        if rate is not None or self.optimizer.learning_rate != self.manifest.learning_rate:
            self.optimizer.learning_rate = self.manifest.learning_rate if rate is None else float(np.asarray(rate))

    def reset_optimizer(self) -> None:
        """Sets the optimizer's slots and counters back to what they were when the file was made."""
        if "reset_optimizer" in self.manifest.signatures:
            self._interpreter.signature("reset_optimizer")({})
            # Any call initialises all variables from the file; none needs less memory for it than this one.
            if self._unread is not None:
                release_pages(self._unread)
                self._unread = None

    def save_weights(self, filepath: str | os.PathLike[str], overwrite: bool = True) -> None:
        """Writes weights and statistics to a ``.npz`` file, one array for each parameter, under its name.

        `edgefl export --weights FILE` makes an ordinary model of it. Optimizer state is in `get_state`.

        Raises:
            InvalidSettingError: the name does not end in ``.npz``, or the file is there and `overwrite` is False.
            StorageError: the file cannot be written.
        """
        write_weights(filepath, self._parameters.get(), overwrite=overwrite)

    def load_weights(self, filepath: str | os.PathLike[str]) -> None:
        """Sets weights and statistics from a file that `save_weights` wrote.

        Raises:
            InvalidSettingError: the name does not end in ``.npz``.
            StorageError: the file cannot be read.
            DataError: it is no such file, or one of another model. Nothing is set then.
        """
        self.set_weights(read_weights(filepath))

    def summary(self, print_fn: Callable[[str], Any] = print) -> None:
        """Prints what is trained: a line for each parameter, and how many numbers there are.

        Args:
            print_fn: takes the text instead of `print`.
        """
        print_fn(summary_of(self.manifest))
