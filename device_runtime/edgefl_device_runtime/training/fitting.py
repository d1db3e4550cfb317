"""The training loop."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgefl.manifest import ModelManifest
from edgefl.metrics import finalise
from edgefl.wire.vocabulary import BatchPolicy
from edgefl_device_runtime.training.batches import mixing, resolve_policy
from edgefl_device_runtime.training.callbacks import Callbacks
from edgefl_device_runtime.training.feeding import Feed
from edgefl_device_runtime.training.history import History, RunningLogs
from edgefl_device_runtime.training.randomness import step_seeds
from edgefl_device_runtime.training.train_signature import TrainSignature

__all__ = ["Plan", "fit", "resolve_plan_policy"]

_SEEDS = 1024
"""Seeds that are drawn at a time where nobody knows how many steps an epoch has."""


@dataclass(frozen=True)
class Plan:
    """The plan of one call of `fit`; every value has been checked.

    Attributes:
        epochs: number of the epoch to stop before.
        initial_epoch: number of the first one.
        batch_size: real rows of a full batch.
        seed: of the model's own random numbers.
        max_steps: None: no limit.
        max_seconds: None: no limit. At least one step is taken.
        steps_per_epoch: where the caller said it.
    """

    epochs: int
    initial_epoch: int
    batch_size: int
    seed: int
    max_steps: int | None
    max_seconds: float | None
    steps_per_epoch: int | None = None


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
    feed: Feed,
    plan: Plan,
    callbacks: Callbacks,
    *,
    validate: Callable[[int], Mapping[str, float] | None] = lambda epoch: None,
    stop_requested: Callable[[], bool] = lambda: False,
    clock: Callable[[], float] = time.monotonic,
) -> History:
    """Runs the epochs of a plan.

    Args:
        train: takes the steps; it has been told their learning rate.
        manifest: the model's.
        feed: brings the batches.
        plan: what to do.
        callbacks: told of steps and epochs.
        validate: returns the validation metrics after an epoch, or None for none.
        stop_requested: asked after every step.
        clock: seconds that only grow.
    """
    history, take_step = History(), train.step
    step_begin, step_end = callbacks.hooks("on_train_batch_begin"), callbacks.hooks("on_train_batch_end")
    deadline = None if plan.max_seconds is None else clock() + plan.max_seconds
    steps_left = math.inf if plan.max_steps is None else plan.max_steps
    longest = 0.0
    logs: dict[str, float] = {}
    callbacks.tell("on_train_begin", {})
    for epoch in range(plan.initial_epoch, plan.epochs):
        callbacks.tell("on_epoch_begin", epoch, {})
        seeds = _seeds(feed.steps, plan.seed, epoch)
        loss_sum = rows_seen = 0.0
        step = -1
        most = None if plan.max_steps is None else plan.max_steps - history.steps
        for step, (arrays, weights, real) in enumerate(feed.epoch(epoch, most)):
            for hook in step_begin:
                hook(step, {})
            loss = take_step(arrays, weights, next(seeds))
            # As in Keras, an epoch's loss is the mean over rows of what each batch had before its step.
            loss_sum += loss * real
            rows_seen += real
            if step_end:
                running = RunningLogs(manifest.metrics, loss_sum, rows_seen, train.states())
                for hook in step_end:
                    hook(step, running)
            steps_left -= 1
            if stop_requested():
                history.stopped = "callback"
            elif steps_left <= 0:
                history.stopped = "max_steps"
            elif deadline is not None and clock() >= deadline:
                history.stopped = "max_seconds"
            if history.stopped:
                break
        if step < 0:  # a generator ran out before this epoch
            history.stopped = "data"
            break
        history.steps += step + 1
        longest = max(longest, rows_seen)
        if history.stopped and step + 1 == feed.steps and epoch + 1 == plan.epochs:
            history.stopped = None  # the limit fell together with the end
        history.states = {"loss_sum": np.array(loss_sum), "rows": np.array(rows_seen), **train.take_states()}
        logs = finalise(manifest.metrics, history.states)
        logs.update({f"val_{name}": value for name, value in (validate(epoch) or {}).items()})
        callbacks.tell("on_epoch_end", epoch, logs)
        history.append(epoch, logs)  # with what callbacks have put into it, as Keras's do
        if history.stopped is None and epoch + 1 < plan.epochs:
            history.stopped = "callback" if stop_requested() else "data" if feed.exhausted else None
        if history.stopped:
            break
    # Not the rows that were really seen: where a rest is dropped, how many they are changes with the shuffle, and with
    # it what a device would weigh in an average.
    rows = int(longest) if feed.rows is None else feed.rows
    limited = history.stopped or plan.steps_per_epoch is not None
    history.num_examples = min(rows, history.steps * plan.batch_size) if limited else rows
    callbacks.tell("on_train_end", logs)
    return history


def _seeds(steps: int | None, seed: int, epoch: int) -> Iterator[np.int32]:
    """One seed after the other, without an end: a longer sequence begins with a shorter one."""
    drawn: NDArray[np.int32] = step_seeds(steps or _SEEDS, seed, epoch)
    yield from drawn
    while True:
        begun = len(drawn)
        drawn = step_seeds(2 * begun, seed, epoch)
        yield from drawn[begun:]
