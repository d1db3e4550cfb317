"""`TrainableModel`: a model file that trains, evaluates and predicts, with the manners of a Keras model."""

from __future__ import annotations

import os
import warnings
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from edgefl.algorithms import check_supports
from edgefl.errors import InvalidSettingError
from edgefl.manifest import ModelManifest
from edgefl.metrics import check_finalisers, finalise
from edgefl.model_file import ModelFile
from edgefl.wire.vocabulary import BatchPolicy
from edgefl_device_runtime.training.arguments import (
    check_batch_size,
    check_count,
    check_first_epoch,
    check_mu,
    check_seconds,
    check_split,
)
from edgefl_device_runtime.training.callbacks import Callbacks
from edgefl_device_runtime.training.class_weights import check_class_weight, row_weights
from edgefl_device_runtime.training.data import prepare
from edgefl_device_runtime.training.evaluation import Rows, as_list, evaluate_rows, predict_rows, sum_states
from edgefl_device_runtime.training.feeding import ArrayFeed, Feed, SourceFeed
from edgefl_device_runtime.training.fitting import Plan, fit, resolve_plan_policy
from edgefl_device_runtime.training.gradients import Gradient, compute_gradient, correction_inputs
from edgefl_device_runtime.training.history import History
from edgefl_device_runtime.training.interpreter import Interpreter, choose_runtime
from edgefl_device_runtime.training.keras_names import refusal
from edgefl_device_runtime.training.progress import ProgressLine, resolve_verbose
from edgefl_device_runtime.training.randomness import check_seed, step_seeds
from edgefl_device_runtime.training.sources import require_alone, source_of
from edgefl_device_runtime.training.stateful_model import StatefulModel
from edgefl_device_runtime.training.threads import check_threads, choose_threads
from edgefl_device_runtime.training.validation import Validation, split_rows

__all__ = ["TrainableModel"]


class TrainableModel(StatefulModel):
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
        optimizer: by which the learning rate is read and set.
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
        manifest: ModelManifest = file.manifest
        del file
        check_finalisers(manifest.metrics)
        if isinstance(num_threads, str):
            runtime = choose_runtime(runtime, manifest.target)
            num_threads = choose_threads(source, manifest, runtime, threads_file)
        self.num_threads = num_threads
        interpreter = Interpreter(source, num_threads, runtime, manifest.target, manifest.graph_hash)
        self.runtime = interpreter.runtime
        super().__init__(interpreter, manifest, None if isinstance(source, bytes) else source)
        self._random = manifest.draws_random_numbers
        self.stop_training = False
        self._said: set[str] = set()
        self._has_reference = False

    def __repr__(self) -> str:
        size, batch = self.manifest.layout.size, self.manifest.batch_size
        return f"TrainableModel({size} shared parameters, batch of {batch}, {self.runtime})"

    if not TYPE_CHECKING:  # a type checker shall go on refusing what is not there

        def __getattr__(self, name: str) -> Any:
            raise AttributeError(refusal(type(self).__name__, name))

    def fit(
        self,
        x: Any,
        y: Any = None,
        batch_size: int | None = None,
        epochs: int = 1,
        verbose: int | str = "auto",
        callbacks: Sequence[Any] | Any | None = None,
        validation_split: float = 0.0,
        validation_data: Any = None,
        shuffle: bool = True,
        class_weight: Mapping[int, float] | None = None,
        sample_weight: ArrayLike | None = None,
        initial_epoch: int = 0,
        steps_per_epoch: int | None = None,
        validation_steps: int | None = None,
        validation_batch_size: int | None = None,
        validation_freq: int | Collection[int] = 1,
        *,
        seed: int = 0,
        learning_rate: float | None = None,
        mu: float | None = None,
        max_steps: int | None = None,
        max_seconds: float | None = None,
        batch_policy: BatchPolicy | str = BatchPolicy.MODEL,
    ) -> History:
        """Trains on local data, going on from the current weights and optimizer state.

        What it does is a function of the data, these arguments and the model's state: the order of the rows and the
        model's own random numbers derive from `seed`, the number of the epoch and of the step, on every platform
        alike. To go on later as if there had been no break, pass the same `seed` and the next `initial_epoch`.

        Args:
            x: array, list of arrays or dict of arrays, shape ``[rows, ...]``; or batches ``(x, y)`` or ``(x, y,
                sample_weight)`` from a generator, a ``tf.data.Dataset``, a ``PyDataset``, a ``DataLoader`` or the like,
                each of which is one step.
            y: the same for the targets.
            batch_size: rows of a step, at most the file's, which is the default.
            epochs: number of the epoch to stop before, as in Keras: with `initial_epoch` 0, how many.
            verbose: 0 prints nothing, 1 a line that moves, 2 a line an epoch; ``auto``: 1 on a terminal or in a
                notebook, else 0.
            callbacks: see `Callback`; Keras's own work too, or are refused by name.
            validation_split: share of the rows, the last ones, that are validated on instead of trained on.
            validation_data: ``(x, y)`` or ``(x, y, sample_weight)``, or batches, evaluated after an epoch.
            shuffle: visit the rows in another order in each epoch; of batches, those of a ``PyDataset``.
            class_weight: what a row of each class counts for in training, by class; others count once.
            sample_weight: one number of at least 0 for each row, shape ``[rows]``.
            initial_epoch: number of the first epoch.
            steps_per_epoch: batches of an epoch; the next one goes on behind them.
            validation_steps: at most so many batches are validated on.
            validation_batch_size: rows of each of these; else without effect on what is computed.
            validation_freq: validate after every so many epochs, or after those in a list, counted from 1.
            seed: at least 0.
            learning_rate: of this call; by default ``optimizer.learning_rate``, which begins as compiled.
            mu: factor of the proximal term ``mu/2 · |w - reference|²`` (see `set_reference`); by default 0, without.
            max_steps: end after so many optimizer steps.
            max_seconds: end after the step during which so many seconds have passed.
            batch_policy: what to do with rows left over after the last full batch: ``pad`` (exact, where rows are
                independent), ``drop``, ``refill`` with rows of the same epoch, or ``model`` for what fits the model.

        Returns:
            The history; loss and metrics of an epoch are, as in Keras, those of each batch before its step.

        Raises:
            DataError: the data does not fit the model.
            InvalidSettingError: an argument is out of range.
            RuntimeFailure: the interpreter failed.
        """
        proximal, size = self._check_mu(mu), check_batch_size(self.manifest, batch_size)
        sized = self._sizes.of_rows(size)
        plan = Plan(
            epochs=check_count("epochs", epochs),
            initial_epoch=check_first_epoch(initial_epoch),
            batch_size=size,
            seed=check_seed(seed),
            max_steps=None if max_steps is None else check_count("max_steps", max_steps),
            max_seconds=check_seconds(max_seconds),
            steps_per_epoch=None if steps_per_epoch is None else check_count("steps_per_epoch", steps_per_epoch),
        )
        classes, share = check_class_weight(self.manifest, class_weight), check_split(validation_split)
        source = source_of(x)
        if source is not None:
            require_alone(source, y=y, sample_weight=sample_weight, batch_size=batch_size)
        order = plan.seed if shuffle else None
        if source is not None:
            if share and validation_data is None:
                raise InvalidSettingError(
                    f"validation_split cannot be used with a {source.kind}: batches are not put aside.",
                    hint="Give validation_data.",
                )
            policy, remark = resolve_plan_policy(self.manifest, batch_policy, size, size)
            feed: Feed = SourceFeed(
                sized.manifest, source, sized.batch, policy, order, plan.steps_per_epoch, classes, self._say_once
            )
        else:
            weights = sample_weight if classes is None else row_weights(y, classes, sample_weight)
            data = prepare(self.manifest, "train", x, y, weights)
            if share and validation_data is None:
                data, validation_data = split_rows(data, share)
                if classes is not None:  # they are for training only
                    validation_data = replace(validation_data, sample_weight=None)
            policy, remark = resolve_plan_policy(self.manifest, batch_policy, data.rows, size)
            feed = ArrayFeed(sized.manifest, data, size, policy, order, plan.steps_per_epoch, self._say_once)
        validation = Validation.of(
            self.manifest, validation_data, validation_batch_size or batch_size, validation_steps, validation_freq
        )
        if remark:
            self._say_once(remark)
        told = self._told(callbacks, verbose, epochs=plan.epochs, steps=feed.steps)
        self.stop_training = False
        with self.optimizer.during(learning_rate) as rate:
            sized.train.begin(rate, proximal)
            return fit(
                sized.train,
                sized.manifest,
                feed,
                plan,
                told,
                validate=lambda epoch: validation.values(epoch, self._interpreter, self.manifest, told),
                stop_requested=lambda: self.stop_training,
            )

    def train_on_batch(
        self,
        x: Any,
        y: Any = None,
        sample_weight: ArrayLike | None = None,
        class_weight: Mapping[int, float] | None = None,
        return_dict: bool = True,
        *,
        learning_rate: float | None = None,
        mu: float | None = None,
        seed: int | None = None,
    ) -> Any:
        """Takes one optimizer step.

        Args:
            x: at most ``manifest.batch_size`` rows; exactly as many where the model mixes rows.
            y: the targets.
            sample_weight: one number for each row.
            class_weight: see `fit`.
            return_dict: False: a list, see `evaluate`.
            learning_rate: of this step; by default ``optimizer.learning_rate``.
            mu: see `fit`.
            seed: of the model's own random numbers in this step; by default the number of this call, which is part of
                the state.

        Returns:
            Loss and metrics of this batch before the step, by name.

        Raises:
            DataError, InvalidSettingError, RuntimeFailure: as `fit`.
        """
        proximal = self._check_mu(mu)
        seed = self._calls if seed is None else check_seed(seed)
        classes = None if class_weight is None else check_class_weight(self.manifest, class_weight)
        rows = len(x) if isinstance(x, np.ndarray) and x.ndim else self.manifest.batch_size
        sized = self._sizes.of_rows(rows)
        batch = sized.batch.fill(x, y, sample_weight, classes)
        with self.optimizer.during(learning_rate) as rate:
            sized.train.begin(rate, proximal)
        loss = sized.train.step(*batch, step_seeds(1, seed, 0)[0] if self._random else 0)
        self._calls += 1
        values = {"loss": loss, **finalise(self.manifest.metrics, sized.train.take_states())}
        return values if return_dict else as_list(self.manifest, values)

    def evaluate(
        self,
        x: Any,
        y: Any = None,
        sample_weight: ArrayLike | None = None,
        batch_size: int | None = None,
        verbose: int | str = "auto",
        steps: int | None = None,
        callbacks: Sequence[Any] | Any | None = None,
        return_dict: bool = True,
    ) -> Any:
        """Computes loss and metrics over any number of rows.

        Args:
            x: see `fit`; also batches.
            y: the targets.
            sample_weight: one number of at least 0 for each row.
            batch_size: rows of each of the `steps`; what is computed does not depend on it.
            verbose: see `fit`.
            steps: at most so many batches.
            callbacks: see `Callback`.
            return_dict: False: a list, loss first, or the loss alone where there are no metrics, as Keras returns
                unless it is asked for a dict.

        Returns:
            A dict by name.

        Raises:
            DataError, InvalidSettingError, RuntimeFailure: as `fit`.
        """
        rows = self._rows("evaluate", x, y, sample_weight, batch_size=batch_size, steps=steps)
        told = self._told(callbacks, verbose, epochs=1, steps=rows.steps)
        values = evaluate_rows(self._interpreter, self.manifest, rows, told)
        return values if return_dict else as_list(self.manifest, values)

    def evaluate_states(
        self, x: Any, y: Any = None, sample_weight: ArrayLike | None = None
    ) -> dict[str, NDArray[np.float64]]:
        """Returns the states that `evaluate` computes its values from; they add up over data sets and devices.

        Returns:
            ``loss_sum``, ``rows`` and every metric's states; `edgefl.metrics.finalise` turns sums of them into values.
        """
        return sum_states(self._interpreter, self.manifest, Rows(self.manifest, "evaluate", x, y, sample_weight))

    def predict(
        self,
        x: Any,
        batch_size: int | None = None,
        verbose: int | str = "auto",
        steps: int | None = None,
        callbacks: Sequence[Any] | Any | None = None,
    ) -> Any:
        """Computes the model's outputs for any number of rows.

        Args:
            x: see `fit`; also batches, of which only the inputs are looked at.
            batch_size: see `evaluate`.
            verbose: see `fit`.
            steps: at most so many batches.
            callbacks: see `Callback`.

        Returns:
            An array of shape ``[rows, ...]``; for several outputs what the model nests them in: a dict, or a list.

        Raises:
            DataError, InvalidSettingError, RuntimeFailure: as `fit`.
        """
        rows = self._rows("infer", x, batch_size=batch_size, steps=steps, with_targets=False)
        told = self._told(callbacks, verbose, epochs=1, steps=rows.steps)
        return predict_rows(self._interpreter, self.manifest, rows, told)

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

    def _rows(self, signature: str, *data: Any, batch_size: int | None, steps: int | None, **more: bool) -> Rows:
        size = None if batch_size is None else check_count("batch_size", batch_size)
        most = None if steps is None else check_count("steps", steps)
        return Rows(self.manifest, signature, *data, batch_size=size, steps=most, **more)

    def _told(self, callbacks: Any, verbose: Any, **params: Any) -> Callbacks:
        """The callbacks of a call, behind them the progress line where somebody looks."""
        level = resolve_verbose(verbose)
        return Callbacks(callbacks, self, {"verbose": level, **params}, last=ProgressLine(level) if level else None)

    def _check_mu(self, mu: float | None) -> float:
        return check_mu(self.manifest, mu, self._has_reference)

    def _say_once(self, remark: str) -> None:
        if remark not in self._said:
            self._said.add(remark)
            warnings.warn(remark, UserWarning, stacklevel=3)
