"""One task: from weights and local data to the outcome that is sent. Equal inputs give equal bytes."""

from __future__ import annotations

import errno
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

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
    Correction,
    MetricState,
    Outcome,
    OutcomeStatus,
    Reason,
    Section,
    Task,
    TaskKind,
)
from edgefl.wire.refusals import Refusal
from edgefl_device_runtime.agent.conditions import TaskDeclinedError, check_fits
from edgefl_device_runtime.agent.corrections import correction_for, remembered
from edgefl_device_runtime.agent.examples import Examples
from edgefl_device_runtime.agent.memory import Memory

__all__ = [
    "DeadlinePassedError",
    "Given",
    "MemoryLostError",
    "Performed",
    "Progress",
    "Trainer",
    "Training",
    "check_deadline",
    "given_up",
    "perform",
    "reason_for",
    "unfinished",
]

Vector = NDArray[np.float32]
Progress = Callable[[], None]
"""Called after every step; may raise to end the task."""


class MemoryLostError(EdgeflError):
    """What the server says that this device keeps of the run is not there any more."""


class DeadlinePassedError(EdgeflError):
    """The task's deadline passed before it was done."""


def check_deadline(task: Task, seconds: float) -> None:
    """Whether anybody still waits for the task.

    Args:
        task: with its deadline; 0: there is none.
        seconds: since it was received.

    Raises:
        DeadlinePassedError: nobody does.
    """
    if 0 < task.deadline_seconds < seconds:
        raise DeadlinePassedError(f"Its deadline of {task.deadline_seconds:g} s passed before it was done.")


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
        memory: what this device kept of the run; None: the server names something that is not there any more.
    """

    weights: Vector
    control: Vector | None = None
    memory: Memory | None = field(default_factory=Memory)


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
    """A model on an interpreter, as a task needs it.

    Attributes:
        latest_loss: of the last step; None when nobody knows.
    """

    latest_loss: float | None

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
    check_fits(task, manifest)
    if given.weights.size != manifest.layout.size:
        raise HashMismatchError(f"Expected {manifest.layout.size} weights for this model, got {given.weights.size}.")
    if examples.rows == 0:
        raise TaskDeclinedError(Reason.NO_DATA, "There are no local examples.")
    memory = _remembered(task, manifest, given.memory)
    trainer.start(given.weights, memory.local, correction_for(task, manifest, given.control, memory.control))
    sections: tuple[Section, ...] = ()
    after = Memory()
    if task.kind == TaskKind.EVALUATE:
        done = trainer.evaluate(examples)
    elif task.kind == TaskKind.GRADIENT:
        done, gradient = trainer.gradient(task, examples)
        sections = (Section.of("gradient", _clipped(gradient, task.clip_norm), task.codec_of("gradient")),)
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


def _remembered(task: Task, manifest: ModelManifest, memory: Memory | None) -> Memory:
    """The memory to go on from.

    Raises:
        MemoryLostError: there should be one. Zeros instead would be wrong in silence: what the server keeps of the run
            still holds this device's part.
    """
    if memory is not None:
        return memory
    if manifest.local_parameters or task.correction is not Correction.NONE:
        raise MemoryLostError(
            f"What this device kept of the run {task.run} is lost or damaged, so it cannot go on with it.",
            hint="Other runs are not concerned. If the state folder was not exchanged, look after its disk.",
        )
    return Memory()


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
    reasons: dict[str, Reason] = {
        Refusal.NOT_FINITE: Reason.DIVERGED,
        Refusal.NORM_EXCEEDED: Reason.DIVERGED,
        Refusal.WRONG_BASE_WEIGHTS: Reason.HASH_MISMATCH,
        Refusal.WRONG_LAYOUT: Reason.HASH_MISMATCH,
        Refusal.UNKNOWN_CODEC: Reason.UNSUPPORTED_TASK,
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
        (MemoryLostError, Reason.MEMORY_LOST),
        (DeadlinePassedError, Reason.OUT_OF_TIME),
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
    sections = [Section.of("delta", _clipped(delta[:size], task.clip_norm), task.codec_of("delta"))]
    if manifest.layout.statistic_size:
        sections.append(Section.of("statistics", delta[size:], task.codec_of("statistics")))
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
