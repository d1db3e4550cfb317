"""The training loop."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np

from edgefl.algorithms import conversion_hint
from edgefl.errors import InvalidSettingError
from edgefl.manifest import ModelManifest
from edgefl.metrics import finalise
from edgefl.wire.vocabulary import BatchPolicy
from edgefl_device_runtime.training.batches import BatchBuffers, batches, mixing, number_of_batches, resolve_policy
from edgefl_device_runtime.training.callbacks import Callback, overridden
from edgefl_device_runtime.training.data import Dataset
from edgefl_device_runtime.training.history import History
from edgefl_device_runtime.training.randomness import row_order, step_seeds
from edgefl_device_runtime.training.train_signature import TrainSignature

__all__ = ["Plan", "check_batch_size", "check_count", "check_learning_rate", "check_mu", "fit"]


def check_count(name: str, value: Any) -> int:
    """Returns a whole number of at least 1.

    Raises:
        InvalidSettingError: it is something else.
    """
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, (int, np.integer)) or value < 1:
        raise InvalidSettingError(f"{name} must be a whole number of at least 1, got {value!r}.")
    return int(value)


def check_learning_rate(manifest: ModelManifest, value: float | None) -> float:
    """Returns the learning rate to use: the caller's, else the compiled one.

    Raises:
        InvalidSettingError: it is negative or not finite.
    """
    if value is None:
        return manifest.learning_rate
    if isinstance(value, (bool, str)) or not 0 <= value < math.inf:  # also whole numbers that no float holds
        raise InvalidSettingError(
            f"The learning rate must be a finite number of at least 0, got {value!r}.",
            hint=f"Leave it out for the compiled one, {manifest.learning_rate:g}.",
        )
    return float(value)


def check_mu(manifest: ModelManifest, value: float | None, has_reference: bool) -> float:
    """Returns the proximal term's factor: the caller's, else 0.

    Raises:
        InvalidSettingError: it is negative or not finite, or above 0 and the file has no such term or no reference was
            set.
    """
    if value is None:
        return 0.0
    if isinstance(value, (bool, str)) or not 0 <= value < math.inf:  # also whole numbers that no float holds
        raise InvalidSettingError(f"mu must be a finite number of at least 0, got {value!r}.")
    if value > 0 and not manifest.has_proximal_term:
        raise InvalidSettingError(
            f"The model file has no proximal term, got mu {value:g}.", hint=conversion_hint("fedprox")
        )
    if value > 0 and not has_reference:
        raise InvalidSettingError(
            f"There is no reference yet to which mu {value:g} could pull.",
            hint="Call set_reference() once the weights are those to stay near.",
        )
    return float(value)


def check_batch_size(manifest: ModelManifest, value: int | None) -> int:
    """Returns the real rows of a full batch: the caller's number, else the file's.

    Raises:
        InvalidSettingError: it is more than the file's, or less where rows are mixed.
    """
    if value is None:
        return manifest.batch_size
    size = check_count("batch_size", value)
    if size > manifest.batch_size or (size < manifest.batch_size and manifest.mixes_rows):
        limit = "exactly" if manifest.mixes_rows else "at most"
        raise InvalidSettingError(
            f"batch_size must be {limit} {manifest.batch_size} with this model file, got {size}.",
            hint=f"Leave it out, or convert the model with `batch_size={size}`.",
        )
    return size


@dataclass(frozen=True)
class Plan:
    """The plan of one call of `fit`; every value has been checked.

    Attributes:
        epochs: number of the epoch to stop before.
        initial_epoch: number of the first one.
        batch_size: real rows of a full batch.
        shuffle: whether each epoch has an order of its own.
        seed: of orders and of the model's own random numbers.
        learning_rate: of every step.
        max_steps: None: no limit.
        max_seconds: None: no limit. At least one step is taken.
        policy: ``PAD``, ``DROP`` or ``REFILL``.
    """

    epochs: int
    initial_epoch: int
    batch_size: int
    shuffle: bool
    seed: int
    learning_rate: float
    max_steps: int | None
    max_seconds: float | None
    policy: BatchPolicy


def resolve_plan_policy(
    manifest: ModelManifest, policy: BatchPolicy | str, rows: int, batch_size: int
) -> tuple[BatchPolicy, str | None]:
    """Returns the policy that applies, and what to tell the user where rows are left out or used twice."""
    why = mixing(manifest)
    resolved = resolve_policy(policy, rows=rows, batch_size=batch_size, mixes_rows=manifest.mixes_rows, why=why)
    rest = rows % batch_size
    if not rest or not manifest.mixes_rows or resolved is BatchPolicy.PAD:
        return resolved, None
    why += ", so that it cannot be padded"
    if resolved is BatchPolicy.DROP:
        return resolved, f"The last {rest} of {rows} rows are left out of each epoch: {why}."
    return resolved, f"The last batch of {rest} rows is filled up to {batch_size} with rows used before: {why}."


def fit(
    train: TrainSignature,
    manifest: ModelManifest,
    data: Dataset,
    plan: Plan,
    *,
    validate: Callable[[], Mapping[str, float]] | None = None,
    callbacks: Sequence[Callback] = (),
    stop_requested: Callable[[], bool] = lambda: False,
    clock: Callable[[], float] = time.monotonic,
) -> History:
    """Runs the epochs of a plan.

    Args:
        train: takes the steps; it has been told their learning rate.
        manifest: the model's.
        data: prepared for it.
        plan: what to do.
        validate: returns the validation metrics; called after every epoch.
        callbacks: told of steps and epochs.
        stop_requested: asked after every step.
        clock: seconds that only grow.
    """
    history, rows, size = History(), data.rows, manifest.batch_size
    tensors = {spec.name: spec.tensor for spec in manifest.signatures["train"].inputs}
    buffers = BatchBuffers(data.columns, tensors, size, data.sample_weight, divides=True)
    arrays, weights, take_step = tuple(buffers.arrays.values()), buffers.weights, train.step
    begin, step_end, end = (
        overridden(callbacks, name) for name in ("on_epoch_begin", "on_train_batch_end", "on_epoch_end")
    )
    deadline = None if plan.max_seconds is None else clock() + plan.max_seconds
    steps_left = math.inf if plan.max_steps is None else plan.max_steps
    steps_per_epoch = number_of_batches(rows, plan.batch_size, plan.policy)
    for epoch in range(plan.initial_epoch, plan.epochs):
        for hook in begin:
            hook(epoch)
        order = row_order(rows, plan.seed, epoch) if plan.shuffle else np.arange(rows)
        seeds = step_seeds(steps_per_epoch, plan.seed, epoch)
        loss_sum = rows_seen = 0.0
        step = 0
        cut = batches(order, plan.batch_size, size, plan.policy)
        if plan.max_steps is not None:
            cut = islice(cut, plan.max_steps - history.steps)  # no rows are read for steps that are not taken
        for step, real in enumerate(buffers.fill(cut)):
            loss = take_step(arrays, weights, seeds[step])
            # As in Keras, an epoch's loss is the mean over rows of what each batch had before its step.
            loss_sum += loss * real
            rows_seen += real
            for hook in step_end:
                hook(step, {"loss": loss})
            steps_left -= 1
            if stop_requested():
                history.stopped = "callback"
            elif steps_left <= 0:
                history.stopped = "max_steps"
            elif deadline is not None and clock() >= deadline:
                history.stopped = "max_seconds"
            if history.stopped:
                break
        history.steps += step + 1
        if history.stopped and step + 1 == steps_per_epoch and epoch + 1 == plan.epochs:
            history.stopped = None  # the limit fell together with the end
        history.states = {"loss_sum": np.array(loss_sum), "rows": np.array(rows_seen), **train.take_states()}
        logs = finalise(manifest.metrics, history.states)
        if validate is not None:
            logs.update({f"val_{name}": value for name, value in validate().items()})
        history.append(epoch, logs)
        for hook in end:
            hook(epoch, logs)
        if history.stopped is None and stop_requested() and epoch + 1 < plan.epochs:
            history.stopped = "callback"
        if history.stopped:
            break
    # Not the rows that were really seen: where a rest is dropped, how many they are changes with the shuffle, and with
    # it what a device would weigh in an average.
    history.num_examples = min(rows, history.steps * plan.batch_size) if history.stopped else rows
    return history
