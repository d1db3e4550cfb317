"""`TrainableModel`: a model file that trains, evaluates and predicts, with the manners of a Keras model."""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from edgefl.algorithms import check_supports
from edgefl.errors import DataError, InvalidSettingError
from edgefl.manifest import ModelManifest
from edgefl.metrics import check_finalisers, finalise
from edgefl.model_file import ModelFile
from edgefl.wire.vocabulary import BatchPolicy
from edgefl_device_runtime.training.callbacks import Callback
from edgefl_device_runtime.training.data import Dataset, prepare
from edgefl_device_runtime.training.evaluation import run_batches, sum_states
from edgefl_device_runtime.training.fitting import (
    Plan,
    check_batch_size,
    check_count,
    check_learning_rate,
    check_mu,
    fit,
    resolve_plan_policy,
)
from edgefl_device_runtime.training.gradients import Gradient, compute_gradient, correction_inputs
from edgefl_device_runtime.training.history import History
from edgefl_device_runtime.training.interpreter import Interpreter, choose_runtime
from edgefl_device_runtime.training.pages import release_pages
from edgefl_device_runtime.training.parameters import Parameters, State
from edgefl_device_runtime.training.randomness import check_seed, step_seeds
from edgefl_device_runtime.training.single_batch import SingleBatch
from edgefl_device_runtime.training.threads import check_threads, choose_threads
from edgefl_device_runtime.training.train_signature import TrainSignature

__all__ = ["TrainableModel"]

_CALLS = "edgefl/train_on_batch_calls"
_SMALL_STATE = 1 << 10
"""Values of optimizer state (counters, no slots) up to which resetting a fresh optimizer costs nothing."""


class TrainableModel:
    """A model file made by `edgefl convert`, loaded and ready to train.

    Args:
        source: path of the ``.tflite`` file, or its bytes.
        num_threads: how many threads a kernel may use. More than 1 seldom helps small models. ``auto`` takes the number
            with which training is fastest here, which is measured in a process of its own: see `choose_threads`.
        runtime: ``ai-edge-litert``, ``tflite-runtime``, ``litert-compiled-model``, or ``auto`` for the fastest that is
            installed, of those that the file was made for.
        threads_file: where the answer of ``auto`` is remembered, so that it is measured once; None: at every load.

    Attributes:
        manifest: what the file says about itself.
        runtime: the interpreter in use.
        num_threads: how many threads it may use.
        stop_training: set it to True from a callback to end `fit` after the current step.

    Raises:
        StorageError: the file cannot be read.
        ModelFileError: it is no model file, or damaged.
        FormatVersionError: it was made by an incompatible edgefl.
        MissingDependencyError: no interpreter is installed.
        RuntimeFailure: the interpreter refuses the model, or the model was made for another one.
    """

    def __init__(
        self,
        source: str | os.PathLike[str] | bytes,
        num_threads: int | str = 1,
        runtime: str = "auto",
        *,
        threads_file: Path | None = None,
    ) -> None:
        num_threads = check_threads(num_threads)
        file = ModelFile(source) if isinstance(source, bytes) else ModelFile.map(source)
        file.verify()
        self.manifest: ModelManifest = file.manifest
        del file
        check_finalisers(self.manifest.metrics)
        if isinstance(num_threads, str):
            runtime = choose_runtime(runtime, self.manifest.target)
            num_threads = choose_threads(source, self.manifest, runtime, threads_file)
        self.num_threads = num_threads
        self._interpreter = Interpreter(source, num_threads, runtime, self.manifest.target, self.manifest.graph_hash)
        self.runtime = self._interpreter.runtime
        self._parameters = Parameters(self._interpreter, self.manifest)
        self._state = State(self._interpreter, self.manifest)
        self._train = TrainSignature(self._interpreter, self.manifest)
        self._unread = None if isinstance(source, bytes) else source
        if sum(math.prod(each.shape) for each in self.manifest.state) < _SMALL_STATE:
            self.reset_optimizer()
        self._batch = SingleBatch(self.manifest)
        self._random = self.manifest.draws_random_numbers
        self.stop_training = False
        self._calls = 0
        self._said: set[str] = set()
        self._has_reference = False

    def __repr__(self) -> str:
        size, batch = self.manifest.layout.size, self.manifest.batch_size
        return f"TrainableModel({size} shared parameters, batch of {batch}, {self.runtime})"

    def fit(
        self,
        x: Any,
        y: Any = None,
        *,
        sample_weight: ArrayLike | None = None,
        epochs: int = 1,
        initial_epoch: int = 0,
        batch_size: int | None = None,
        shuffle: bool = True,
        seed: int = 0,
        learning_rate: float | None = None,
        mu: float | None = None,
        max_steps: int | None = None,
        max_seconds: float | None = None,
        batch_policy: BatchPolicy | str = BatchPolicy.MODEL,
        validation_data: Sequence[Any] | None = None,
        callbacks: Sequence[Callback] = (),
    ) -> History:
        """Trains on local data, going on from the current weights and optimizer state.

        What it does is a function of the data, these arguments and the model's state: the order of the rows and the
        model's own random numbers derive from `seed`, the number of the epoch and of the step, on every platform
        alike. To go on later as if there had been no break, pass the same `seed` and the next `initial_epoch`.

        Args:
            x: array, list of arrays or dict of arrays, shape ``[rows, ...]``.
            y: the same for the targets.
            sample_weight: one number of at least 0 for each row, shape ``[rows]``.
            epochs: number of the epoch to stop before, as in Keras: with `initial_epoch` 0, how many.
            initial_epoch: number of the first epoch.
            batch_size: rows of a step, at most the file's, which is the default.
            shuffle: visit the rows in another order in each epoch.
            seed: at least 0.
            learning_rate: by default the one that the model was compiled with.
            mu: factor of the proximal term ``mu/2 · |w - reference|²`` (see `set_reference`); by default 0, without.
            max_steps: end after so many optimizer steps.
            max_seconds: end after the step during which so many seconds have passed.
            batch_policy: what to do with rows left over after the last full batch: ``pad`` (exact, where rows are
                independent), ``drop``, ``refill`` with rows of the same epoch, or ``model`` for what fits the model.
            validation_data: ``(x, y)`` or ``(x, y, sample_weight)``, evaluated after each epoch.
            callbacks: see `Callback`.

        Returns:
            The history; loss and metrics of an epoch are, as in Keras, those of each batch before its step.

        Raises:
            DataError: the data does not fit the model.
            InvalidSettingError: an argument is out of range.
            RuntimeFailure: the interpreter failed.
        """
        rate, proximal = check_learning_rate(self.manifest, learning_rate), self._check_mu(mu)
        size = check_batch_size(self.manifest, batch_size)
        if max_seconds is not None and not max_seconds > 0:
            raise InvalidSettingError(f"max_seconds must be a number above 0, got {max_seconds!r}.")
        if isinstance(initial_epoch, bool) or not isinstance(initial_epoch, (int, np.integer)) or initial_epoch < 0:
            raise InvalidSettingError(f"initial_epoch must be a whole number of at least 0, got {initial_epoch!r}.")
        epochs, seed = check_count("epochs", epochs), check_seed(seed)
        limit = None if max_steps is None else check_count("max_steps", max_steps)
        data = prepare(self.manifest, "train", x, y, sample_weight)
        validation = None if validation_data is None else self._prepare_validation(validation_data)
        policy, remark = resolve_plan_policy(self.manifest, batch_policy, data.rows, size)
        if remark:
            self._say_once(remark)
        plan = Plan(epochs, int(initial_epoch), size, shuffle, seed, rate, limit, max_seconds, policy)
        self.stop_training = False
        for callback in callbacks:
            callback.set_model(self)
        self._train.begin(rate, proximal)
        return fit(
            self._train,
            self.manifest,
            data,
            plan,
            validate=None if validation is None else lambda: self._finalised(self._evaluate(validation)),
            callbacks=callbacks,
            stop_requested=lambda: self.stop_training,
        )

    def train_on_batch(
        self,
        x: Any,
        y: Any = None,
        sample_weight: ArrayLike | None = None,
        *,
        learning_rate: float | None = None,
        mu: float | None = None,
        seed: int | None = None,
    ) -> dict[str, float]:
        """Takes one optimizer step.

        Args:
            x: at most ``manifest.batch_size`` rows; exactly as many where the model mixes rows.
            y: the targets.
            sample_weight: one number for each row.
            learning_rate: by default the compiled one.
            mu: see `fit`.
            seed: of the model's own random numbers in this step; by default the number of this call, which is part of
                the state.

        Returns:
            Loss and metrics of this batch before the step, by name.

        Raises:
            DataError: the data does not fit the model.
            InvalidSettingError: an argument is out of range.
            RuntimeFailure: the interpreter failed.
        """
        rate, proximal = check_learning_rate(self.manifest, learning_rate), self._check_mu(mu)
        seed = self._calls if seed is None else check_seed(seed)
        batch = self._batch.fill(x, y, sample_weight)
        self._train.begin(rate, proximal)
        loss = self._train.step(*batch, step_seeds(1, seed, 0)[0] if self._random else 0)
        self._calls += 1
        return {"loss": loss, **finalise(self.manifest.metrics, self._train.take_states())}

    def evaluate(self, x: Any, y: Any = None, sample_weight: ArrayLike | None = None) -> dict[str, float]:
        """Computes loss and metrics over any number of rows, by name.

        Raises:
            DataError: the data does not fit the model.
            RuntimeFailure: the interpreter failed.
        """
        return self._finalised(self.evaluate_states(x, y, sample_weight))

    def evaluate_states(
        self, x: Any, y: Any = None, sample_weight: ArrayLike | None = None
    ) -> dict[str, NDArray[np.float64]]:
        """Returns the states that `evaluate` computes its values from; they add up over data sets and devices.

        Returns:
            ``loss_sum``, ``rows`` and every metric's states; `edgefl.metrics.finalise` turns sums of them into values.
        """
        return self._evaluate(prepare(self.manifest, "evaluate", x, y, sample_weight))

    def predict(self, x: Any) -> Any:
        """Computes the model's outputs for any number of rows.

        Returns:
            An array of shape ``[rows, ...]``; for several outputs a list of them, in the order of ``manifest.outputs``.

        Raises:
            DataError: the data does not fit the model.
            RuntimeFailure: the interpreter failed.
        """
        data = prepare(self.manifest, "infer", x, with_targets=False)
        specs = {spec.name: spec for spec in self.manifest.signatures["infer"].outputs}
        wanted = [specs[name] for name in self.manifest.outputs]
        results = [np.empty((data.rows, *spec.shape[1:]), spec.dtype) for spec in wanted]
        start = 0
        for outputs, real in run_batches(self._interpreter, self.manifest, "infer", data):
            for result, spec in zip(results, wanted, strict=True):
                result[start : start + real] = outputs[spec.tensor][:real]
            start += real
        return results[0] if len(results) == 1 else results

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

    def set_reference(self) -> None:
        """Notes the shared weights as they are now, to which `fit` with ``mu`` pulls: FedProx, Li et al. 2020.

        Raises:
            InvalidSettingError: the file was not made with ``algorithms`` ``fedprox`` or ``feddyn``.
        """
        check_supports(self.manifest, "fedprox")
        self._interpreter.signature("set_reference")({})
        self._has_reference = True

    def set_correction(self, vector: ArrayLike | None) -> None:
        """Sets what is added to the gradient in every step from now on: SCAFFOLD, FedDyn.

        Args:
            vector: float32 ``[manifest.layout.weight_size]``; None for zeros, as in a model just loaded.

        Raises:
            InvalidSettingError: the file was not made with ``algorithms`` ``scaffold`` or ``feddyn``.
            DataError: the vector has another shape or type, or is not finite.
        """
        inputs = correction_inputs(self.manifest, vector)  # refuses a file without the signature
        self._interpreter.signature("set_correction")(inputs)

    def gradient(self, x: Any, y: Any = None, sample_weight: ArrayLike | None = None, *, seed: int = 0) -> Gradient:
        """Computes the gradient of the loss at the current weights over any number of rows; changes nothing.

        Raises:
            InvalidSettingError: the file was not made with ``algorithms`` ``fedsgd``. Else as `fit`.
        """
        check_supports(self.manifest, "fedsgd")
        data = prepare(self.manifest, "gradient", x, y, sample_weight)
        policy, remark = resolve_plan_policy(self.manifest, BatchPolicy.MODEL, data.rows, self.manifest.batch_size)
        if remark:
            self._say_once(remark)
        return compute_gradient(self._interpreter, self.manifest, data, policy, check_seed(seed))

    def get_state(self) -> dict[str, NDArray[Any]]:
        """Returns everything that training changes, by name: ``numpy.savez(file, **state)`` keeps it."""
        state = self._state.get()
        if self.manifest.draws_random_numbers:
            state[_CALLS] = np.array(self._calls, np.int64)
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
        self._state.set(arrays)
        self._calls = int(np.asarray(calls))

    def reset_optimizer(self) -> None:
        """Sets the optimizer's slots and counters back to what they were when the file was made."""
        if "reset_optimizer" in self.manifest.signatures:
            self._interpreter.signature("reset_optimizer")({})
            # Any call initialises all variables from the file; none needs less memory for it than this one.
            if self._unread is not None:
                release_pages(self._unread)
                self._unread = None

    def _check_mu(self, mu: float | None) -> float:
        return check_mu(self.manifest, mu, self._has_reference)

    def _prepare_validation(self, validation_data: Sequence[Any]) -> Dataset:
        if not isinstance(validation_data, (tuple, list)) or len(validation_data) not in (2, 3):
            raise DataError("validation_data expects (x, y) or (x, y, sample_weight).")
        return prepare(self.manifest, "evaluate", *validation_data)

    def _evaluate(self, data: Dataset) -> dict[str, NDArray[np.float64]]:
        return sum_states(self._interpreter, self.manifest, data)

    def _finalised(self, states: Mapping[str, NDArray[np.float64]]) -> dict[str, float]:
        return finalise(self.manifest.metrics, states)

    def _say_once(self, remark: str) -> None:
        if remark not in self._said:
            self._said.add(remark)
            warnings.warn(remark, UserWarning, stacklevel=3)
