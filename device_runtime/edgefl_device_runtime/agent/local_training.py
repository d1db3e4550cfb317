"""One task: from weights and local data to the outcome that is sent. Equal inputs give equal bytes."""

from __future__ import annotations

import errno
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from edgefl.codecs import codec_names
from edgefl.errors import (
    DataError,
    EdgeflError,
    FormatVersionError,
    HashMismatchError,
    InvalidSettingError,
    ModelFileError,
    RuntimeFailure,
    StorageError,
)
from edgefl.manifest import ModelManifest
from edgefl.wire.messages import (
    BatchPolicy,
    MetricState,
    OptimizerState,
    Outcome,
    OutcomeStatus,
    Reason,
    Section,
    Task,
    TaskKind,
)
from edgefl_device_runtime.agent.examples import Examples

__all__ = [
    "SUPPORTED_KINDS",
    "Progress",
    "TaskDeclinedError",
    "Trainer",
    "Training",
    "check_supported",
    "given_up",
    "perform",
    "reason_for",
    "unfinished",
]

Vector = NDArray[np.float32]
Progress = Callable[[], None]
"""Called after every step; may raise to end the task."""

SUPPORTED_KINDS = (TaskKind.TRAIN, TaskKind.EVALUATE)


class TaskDeclinedError(EdgeflError):
    """This device does not do a task.

    Args:
        reason: what the server is told.
        message: what the device's owner is told.
    """

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(message)
        self.reason = reason


@dataclass(frozen=True)
class Training:
    """What a trainer did.

    Attributes:
        num_examples: rows that took part.
        steps: optimizer steps.
        states: additive states of loss and metrics: of the last epoch, or of the evaluation.
    """

    num_examples: int
    steps: int
    states: Mapping[str, tuple[float, ...]]


class Trainer(Protocol):
    """A model on an interpreter, as a task needs it."""

    @property
    def manifest(self) -> ModelManifest:
        """What the model file says about itself."""

    @property
    def weights(self) -> Vector:
        """The shared parameters, a new vector of shape ``[layout.size]``."""

    @property
    def version(self) -> str:
        """Product and version, for the outcome."""

    def start(self, weights: Vector) -> None:
        """Makes the state what it is at the beginning of every task: these weights, a fresh optimizer."""

    def train(self, task: Task, examples: Examples, progress: Progress) -> Training:
        """Trains as the task says."""

    def evaluate(self, examples: Examples) -> Training:
        """Evaluates without changing anything."""


def check_supported(task: Task) -> None:
    """Whether this version knows everything that the task asks for.

    Raises:
        TaskDeclinedError: it does not.
    """
    if task.kind not in SUPPORTED_KINDS:
        raise _unsupported(f"its kind is {task.kind!r}")
    if task.codec not in codec_names():
        raise _unsupported(f"its codec is {task.codec!r}")
    if not isinstance(task.batch_policy, BatchPolicy):
        raise _unsupported(f"its batch policy is {task.batch_policy!r}")
    if task.optimizer_state != OptimizerState.RESET:
        raise _unsupported("it wants optimizer slots kept between tasks")
    if task.mu != 0:
        raise _unsupported("it wants a proximal term")
    if task.extra_vectors:
        raise _unsupported("it names further vectors")


def perform(task: Task, trainer: Trainer, base_weights: Vector, examples: Examples, progress: Progress) -> Outcome:
    """Does a task.

    Args:
        task: of a supported kind.
        trainer: holds the task's model.
        base_weights: the weights to start from, shape ``[layout.size]``.
        examples: local data.
        progress: called after every step.

    Returns:
        An outcome of status ``DONE``, or ``FAILED`` with reason ``DIVERGED``.

    Raises:
        TaskDeclinedError: there is nothing to train on, or the model cannot take part.
        EdgeflError: what the trainer raises.
    """
    manifest = trainer.manifest
    if manifest.layout_hash != task.layout_hash or manifest.graph_hash != task.graph_hash:
        raise HashMismatchError("The task names another graph or layout than its model file has.")
    if base_weights.size != manifest.layout.size:
        raise HashMismatchError(f"Expected {manifest.layout.size} weights for this model, got {base_weights.size}.")
    if any(not parameter.shared for parameter in manifest.parameters):
        raise TaskDeclinedError(
            Reason.UNSUPPORTED_MODEL, "The model has parameters that stay on the device, which this version lacks."
        )
    if task.batch_size > manifest.batch_size:
        raise _unsupported(f"it wants batches of {task.batch_size} rows, the model takes {manifest.batch_size}")
    if examples.rows == 0:
        raise TaskDeclinedError(Reason.NO_DATA, "There are no local examples.")
    trainer.start(base_weights)
    sections: tuple[Section, ...] = ()
    if task.kind == TaskKind.EVALUATE:
        done = trainer.evaluate(examples)
    else:
        done = trainer.train(task, examples, progress)
        sections = _sections(task, manifest, trainer.weights - base_weights)
    finite = all(math.isfinite(value) for values in done.states.values() for value in values)
    if not finite or any(not np.isfinite(section.vector()).all() for section in sections):
        return unfinished(task, OutcomeStatus.FAILED, Reason.DIVERGED, trainer.version)
    return Outcome(
        task_id=task.task_id,
        base_weights_hash=task.base_weights_hash,
        layout_hash=task.layout_hash,
        num_examples=done.num_examples,
        local_steps=done.steps,
        sections=sections,
        metrics=tuple(MetricState(name, values) for name, values in sorted(done.states.items())),
        trainer=trainer.version,
    )


def unfinished(task: Task, status: OutcomeStatus, reason: Reason, version: str) -> Outcome:
    """The outcome of a task that was declined or failed."""
    return Outcome(
        task_id=task.task_id,
        base_weights_hash=task.base_weights_hash,
        layout_hash=task.layout_hash,
        status=status,
        reason=reason,
        trainer=version,
    )


def given_up(outcome: Outcome, refusal: str) -> Outcome:
    """What is sent instead of an outcome that the server refused, so that nobody waits for another one.

    Args:
        outcome: that was refused.
        refusal: the server's reason code.
    """
    reasons = {
        "not_finite": Reason.DIVERGED,
        "norm_exceeded": Reason.DIVERGED,
        "wrong_base_weights": Reason.HASH_MISMATCH,
        "wrong_layout": Reason.HASH_MISMATCH,
        "unknown_codec": Reason.UNSUPPORTED_TASK,
    }
    return Outcome(
        task_id=outcome.task_id,
        base_weights_hash=outcome.base_weights_hash,
        layout_hash=outcome.layout_hash,
        status=OutcomeStatus.FAILED,
        reason=reasons.get(refusal, Reason.INTERNAL),
        trainer=outcome.trainer,
    )


def reason_for(error: Exception) -> tuple[OutcomeStatus, Reason]:
    """What the server is told about an error."""
    if isinstance(error, TaskDeclinedError):
        return OutcomeStatus.DECLINED, error.reason
    if isinstance(error, InvalidSettingError):
        return OutcomeStatus.DECLINED, Reason.UNSUPPORTED_TASK
    if isinstance(error, StorageError):
        full = isinstance(error.__cause__, OSError) and error.__cause__.errno in (errno.ENOSPC, errno.EDQUOT)
        return OutcomeStatus.FAILED, Reason.OUT_OF_DISK if full else Reason.INTERNAL
    reasons: list[tuple[type[Exception], Reason]] = [
        (DataError, Reason.DATA_MISMATCH),
        (HashMismatchError, Reason.HASH_MISMATCH),
        (ModelFileError, Reason.UNSUPPORTED_MODEL),
        (FormatVersionError, Reason.UNSUPPORTED_MODEL),
        (RuntimeFailure, Reason.UNSUPPORTED_MODEL),
        (MemoryError, Reason.OUT_OF_MEMORY),
    ]
    return OutcomeStatus.FAILED, next((reason for kind, reason in reasons if isinstance(error, kind)), Reason.INTERNAL)


def _sections(task: Task, manifest: ModelManifest, delta: Vector) -> tuple[Section, ...]:
    size = manifest.layout.weight_size
    sections = [Section.of("delta", _clipped(delta[:size], task.clip_norm), task.codec)]
    if manifest.layout.statistic_size:
        sections.append(Section.of("statistics", delta[size:], task.codec))
    return tuple(sections)


def _clipped(delta: Vector, bound: float) -> Vector:
    """Scales a vector so that its L2 norm is at most ``bound``; 0 stands for no bound."""
    if bound <= 0:
        return delta
    # numpy's own pairwise sum: that of a BLAS may depend on its number of threads.
    norm = math.sqrt(float(np.sum(np.square(delta, dtype=np.float64))))
    if not norm > bound:
        return delta
    scaled: Vector = (delta * (bound / norm)).astype(np.float32)
    return scaled


def _unsupported(what: str) -> TaskDeclinedError:
    return TaskDeclinedError(Reason.UNSUPPORTED_TASK, f"This version does not know how to do the task: {what}.")
