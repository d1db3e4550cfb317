"""One task: from weights and local data to the outcome that is sent. Equal inputs give equal bytes."""

from __future__ import annotations

import errno
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from edgefl.algorithms import check_plain_sgd
from edgefl.codecs import codec_names
from edgefl.errors import (
    DataError,
    DataNotReadyError,
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
    Correction,
    MetricState,
    OptimizerState,
    Outcome,
    OutcomeStatus,
    Reason,
    Section,
    Task,
    TaskKind,
)
from edgefl_device_runtime.agent.corrections import CONTROL, correction_for, learning_rate_of, remembered
from edgefl_device_runtime.agent.examples import Examples
from edgefl_device_runtime.agent.memory import Memory

__all__ = [
    "SUPPORTED_KINDS",
    "Given",
    "Performed",
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

SUPPORTED_KINDS = (TaskKind.TRAIN, TaskKind.EVALUATE, TaskKind.GRADIENT)


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
        num_examples: local rows; of training that was stopped early at most steps × batch size.
        steps: optimizer steps.
        states: additive states of loss and metrics: of the last epoch, or of the evaluation.
    """

    num_examples: int
    steps: int
    states: Mapping[str, tuple[float, ...]]


@dataclass(frozen=True, eq=False)
class Given:
    """What a task starts from.

    Attributes:
        weights: the base weights, float32 ``[layout.size]``.
        control: SCAFFOLD's ``c``, float32 ``[layout.weight_size]``, where the task names it.
        memory: what this device kept of the run.
    """

    weights: Vector
    control: Vector | None = None
    memory: Memory = field(default_factory=Memory)


@dataclass(frozen=True, eq=False)
class Performed:
    """What came out of a task.

    Attributes:
        outcome: to be sent.
        memory: what the run is like afterwards, if the outcome comes to count; empty: nothing is to be kept.
    """

    outcome: Outcome
    memory: Memory = field(default_factory=Memory)


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

    @property
    def local_parameters(self) -> dict[str, NDArray[np.float32]]:
        """The parameters that are not shared, by name, as new arrays."""

    def start(self, weights: Vector, local: Mapping[str, NDArray[np.float32]], correction: Vector | None) -> None:
        """Makes the state what it is at the beginning of every task.

        Args:
            weights: the shared parameters.
            local: those that are not; what is missing gets the file's initial value.
            correction: is added to the gradient in every step; None: nothing is.
        """

    def train(self, task: Task, examples: Examples, progress: Progress) -> Training:
        """Trains as the task says."""

    def evaluate(self, examples: Examples) -> Training:
        """Evaluates without changing anything."""

    def gradient(self, task: Task, examples: Examples) -> tuple[Training, Vector]:
        """The gradient over all examples at the current weights, float32 ``[layout.weight_size]``."""


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
    if not math.isfinite(task.mu) or task.mu < 0:
        raise _unsupported(f"its mu is {task.mu:g}")
    if not isinstance(task.correction, Correction):
        raise _unsupported(f"its correction is {task.correction!r}")
    names = [each.name for each in task.extra_vectors]
    if names != ([CONTROL] if task.correction is Correction.SCAFFOLD else []):
        raise _unsupported(f"it names the further vectors {', '.join(names) or 'none'}")
    if task.correction is Correction.FEDDYN and task.mu == 0:
        raise _unsupported("FedDyn expects mu above 0")
    if task.correction is not Correction.NONE and (task.kind != TaskKind.TRAIN or task.clip_norm > 0):
        raise _unsupported("a correction goes with training, and without clipping")


def _check_fits(task: Task, manifest: ModelManifest) -> None:
    """Whether the model file, or what the server says, suffices for what the task asks for.

    Raises:
        HashMismatchError: the task names another model.
        TaskDeclinedError: they do not suffice.
    """
    if manifest.layout_hash != task.layout_hash or manifest.graph_hash != task.graph_hash:
        raise HashMismatchError("The task names another graph or layout than its model file has.")
    if manifest.layout.weight_size == 0:
        raise TaskDeclinedError(Reason.UNSUPPORTED_MODEL, "Every weight of the model stays on the device.")
    if task.batch_size > manifest.batch_size:
        raise _unsupported(f"it wants batches of {task.batch_size} rows, the model takes {manifest.batch_size}")
    if task.continues is None and (manifest.local_parameters or task.correction is not Correction.NONE):
        raise _unsupported("the server does not say which task it continues")
    lacking = [
        what
        for what, wanted, there in (
            ("proximal term", task.mu > 0, manifest.has_proximal_term),
            ("correction", task.correction is not Correction.NONE, manifest.has_correction),
            ("gradient", task.kind == TaskKind.GRADIENT, manifest.has_gradient),
        )
        if wanted and not there
    ]
    if lacking:
        raise TaskDeclinedError(Reason.UNSUPPORTED_MODEL, f"The model file was made without a {lacking[0]}.")
    if task.correction is Correction.SCAFFOLD:
        try:
            check_plain_sgd(manifest.optimizer)
        except InvalidSettingError as error:
            raise TaskDeclinedError(Reason.UNSUPPORTED_MODEL, error.message) from error
        if not learning_rate_of(task, manifest) > 0:
            raise _unsupported("SCAFFOLD expects a learning rate above 0")


def perform(task: Task, trainer: Trainer, given: Given, examples: Examples, progress: Progress) -> Performed:
    """Does a task.

    Args:
        task: of a supported kind.
        trainer: holds the task's model.
        given: what to start from.
        examples: local data.
        progress: called after every step.

    Returns:
        An outcome of status ``DONE``, or ``FAILED`` with reason ``DIVERGED``; and what to remember of the run.

    Raises:
        TaskDeclinedError: there is nothing to train on, or the model cannot take part.
        EdgeflError: what the trainer raises.
    """
    manifest = trainer.manifest
    _check_fits(task, manifest)
    if given.weights.size != manifest.layout.size:
        raise HashMismatchError(f"Expected {manifest.layout.size} weights for this model, got {given.weights.size}.")
    if examples.rows == 0:
        raise TaskDeclinedError(Reason.NO_DATA, "There are no local examples.")
    memory = given.memory
    trainer.start(given.weights, memory.local, correction_for(task, manifest, given.control, memory.control))
    sections: tuple[Section, ...] = ()
    after = Memory()
    if task.kind == TaskKind.EVALUATE:
        done = trainer.evaluate(examples)
    elif task.kind == TaskKind.GRADIENT:
        done, gradient = trainer.gradient(task, examples)
        sections = (Section.of("gradient", _clipped(gradient, task.clip_norm), task.codec),)
    else:
        done = trainer.train(task, examples, progress)
        delta = trainer.weights
        np.subtract(delta, given.weights, out=delta)
        sections = _sections(task, manifest, delta)
        trained = delta[: manifest.layout.weight_size]
        control, further = remembered(task, manifest, given.control, memory.control, trained, sections[0], done.steps)
        sections, after = (*sections, *further), Memory(trainer.local_parameters, control)
    finite = all(math.isfinite(value) for values in done.states.values() for value in values)
    vectors = [*(section.vector() for section in sections), *after.vectors]
    if not finite or any(not np.isfinite(vector).all() for vector in vectors):
        return Performed(unfinished(task, OutcomeStatus.FAILED, Reason.DIVERGED, trainer.version))
    outcome = Outcome(
        task_id=task.task_id,
        base_weights_hash=task.base_weights_hash,
        layout_hash=task.layout_hash,
        num_examples=done.num_examples,
        local_steps=done.steps,
        sections=sections,
        metrics=tuple(MetricState(name, values) for name, values in sorted(done.states.items())),
        trainer=trainer.version,
    )
    return Performed(outcome, after)


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
    if isinstance(error, DataNotReadyError):
        return OutcomeStatus.DECLINED, Reason.NOT_READY
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
