"""Performs a task: from the weights and the local data to the outcome. Equal inputs give equal bytes."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from edgefl.algorithms import CONTROL, SUMMARY
from edgefl.errors import HashMismatchError, MissingDependencyError
from edgefl.manifest import ModelManifest
from edgefl.wire.messages import MetricState, Outcome, OutcomeStatus, Reason, Section, Task, TaskKind
from edgefl_device_runtime.tasks.conditions import (
    MINIMUM_EXAMPLES,
    TaskDeclinedError,
    check_enough,
    check_fits,
    check_supported,
)
from edgefl_device_runtime.tasks.corrections import control_after, correction_for
from edgefl_device_runtime.tasks.examples import Arrays, Examples, arrange
from edgefl_device_runtime.tasks.local_tests import parted, tested
from edgefl_device_runtime.tasks.outcomes import refusal, unfinished
from edgefl_device_runtime.tasks.run_memory import Remembered, RunMemory, recall, remember
from edgefl_device_runtime.tasks.summing_up import sum_up
from edgefl_device_runtime.tasks.trainer import Progress, Trainer, Training
from edgefl_device_runtime.tasks.writing import bounded, update

__all__ = ["Received", "TaskResult", "perform"]

Vector = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Received:
    """The vectors that a task names by their content.

    Attributes:
        weights: the base weights, float32 ``[layout.size]``.
        vectors: the further ones by name, float32 ``[layout.weight_size]`` each: ``control`` is SCAFFOLD's ``c``.
    """

    weights: Vector
    vectors: Mapping[str, Vector] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class TaskResult:
    """The outcome of a task, and what the device keeps of it.

    Attributes:
        outcome: to be sent, whatever happened.
        remembered: of the run from now on; the memory of this task is there under its id, if there is one to be kept.
        error: why the task was declined or failed, for the device's owner; None when it was done or diverged.
    """

    outcome: Outcome
    remembered: Remembered = field(default_factory=dict)
    error: Exception | None = None


def perform(
    task: Task,
    trainer: Trainer,
    received: Received,
    examples: Examples | Arrays,
    remembered: Remembered | None = None,
    *,
    minimum_examples: int = MINIMUM_EXAMPLES,
    progress: Progress = lambda: None,
    check: Callable[[], None] = lambda: None,
    at_work: contextlib.AbstractContextManager[object] | None = None,
) -> TaskResult:
    """Does everything that a device does with a task, without files, sockets or clocks.

        trainer = ModelTrainer(TrainableModel("model.tflite"))
        remembered: Remembered = {}
        for task, weights in work:
            result = perform(task, trainer, Received(weights), {"x": x, "y": y}, remembered)
            remembered = result.remembered
            send(result.outcome)

    Args:
        task: as it was decoded.
        trainer: holds the task's model.
        received: what the task names.
        examples: local data: arranged for the model, or by name as `arrange` takes it.
        remembered: of the task's run, as the latest result of this device says; None: nothing.
        minimum_examples: a task that would be done with fewer is declined: of a single example, an update may tell all.
        progress: called after every step; ``trainer.latest_loss`` is then that step's.
        check: called after every step, and before an error becomes an outcome; may raise to end the task, and what it
            raises reaches the caller.
        at_work: entered once nothing speaks against the task any more, and left when the model has done its work. What
            it raises is an error of the task's.

    Returns:
        Whatever happened: an outcome of status ``DONE``, or ``DECLINED`` or ``FAILED`` with the reason for it.

    Raises:
        MissingDependencyError: the owner has to act, and the task stays open until then.
    """
    remembered = {} if remembered is None else remembered

    def after_step() -> None:
        check()
        progress()

    try:
        outcome, after = _done(task, trainer, received, examples, remembered, minimum_examples, after_step, at_work)
    except MissingDependencyError:
        raise
    except Exception as error:
        check()  # an import or a binding may have made it of what was to end the work
        # Whatever goes wrong on a device is an outcome: the server must not wait for it.
        return TaskResult(refusal(task, error, trainer.version), remembered, error)
    return TaskResult(outcome, remember(task, remembered, after))


def _done(
    task: Task,
    trainer: Trainer,
    received: Received,
    data: Examples | Arrays,
    remembered: Remembered,
    minimum_examples: int,
    progress: Progress,
    at_work: contextlib.AbstractContextManager[object] | None,
) -> tuple[Outcome, RunMemory]:
    """Makes an outcome of status ``DONE``, or ``FAILED`` with reason ``DIVERGED``, and the run's memory at its end.

    Raises:
        TaskDeclinedError: this device, its data or its owner speak against it.
        EdgeflError: what the trainer raises.
    """
    manifest = trainer.manifest
    check_supported(task)
    check_fits(task, manifest)
    _check_received(task, manifest, received)
    examples = data if isinstance(data, Examples) else arrange(data, manifest)
    examples, tests = parted(task, examples, minimum_examples)
    check_enough(task, manifest, examples, minimum_examples)
    if examples.rows == 0:
        raise TaskDeclinedError(Reason.NO_DATA, "There are no local examples.")
    memory = recall(task, manifest, remembered)
    with at_work or contextlib.nullcontext():
        return _worked(task, trainer, received, examples, tests, memory, progress)


def _worked(
    task: Task,
    trainer: Trainer,
    received: Received,
    examples: Examples,
    tests: Examples | None,
    memory: RunMemory,
    progress: Progress,
) -> tuple[Outcome, RunMemory]:
    """Does the work of `_done`, once nothing speaks against the task."""
    if task.kind == TaskKind.STATISTICS:
        summed_up = Section.of_bytes(SUMMARY, sum_up(examples, trainer.manifest).encode())
        return _done_with(task, trainer, Training(examples.rows, 0, {}), (summed_up,)), RunMemory()
    manifest, control = trainer.manifest, received.vectors.get(CONTROL)
    trainer.start(received.weights, memory.local, correction_for(task, manifest, control, memory.control))
    sections: tuple[Section, ...] = ()
    after = RunMemory()
    if task.kind == TaskKind.EVALUATE:
        done = trainer.evaluate(examples)
    elif task.kind == TaskKind.GRADIENT:
        done, gradient = trainer.gradient(task, examples)
        if not _is_finite(gradient):
            return _diverged(task, trainer)
        sections = (bounded(task, "gradient", gradient),)
    else:
        before = None if tests is None else trainer.evaluate(tests)
        done = trainer.train(task, examples, progress)
        if tests is not None and before is not None:
            states = tested(done.states, before.states, trainer.evaluate(tests).states)
            done = Training(done.num_examples, done.steps, states)
        delta = trainer.weights
        np.subtract(delta, received.weights, out=delta)
        if not _is_finite(delta):  # before it is written: not every codec could say so
            return _diverged(task, trainer)
        trained = delta[: manifest.layout.weight_size]
        sent, residual = update(task, trained, memory.residual)
        own, further = control_after(task, manifest, control, memory.control, trained, sent, done.steps)
        sections = (sent, *_statistics(task, manifest, delta), *further)
        after = RunMemory(trainer.local_parameters, own, residual)
    finite = all(math.isfinite(value) for values in done.states.values() for value in values)
    if not finite or not _is_finite(*(section.vector() for section in sections), *after.vectors):
        return _diverged(task, trainer)
    return _done_with(task, trainer, done, sections), after


def _done_with(task: Task, trainer: Trainer, done: Training, sections: tuple[Section, ...]) -> Outcome:
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


def _check_received(task: Task, manifest: ModelManifest, received: Received) -> None:
    """Makes sure that all that the task names is there, and fits the model.

    Raises:
        HashMismatchError: it is not.
    """
    layout = manifest.layout
    vectors = {"base weights": (received.weights, layout.size)}
    for each in task.extra_vectors:
        if each.name not in received.vectors:
            raise HashMismatchError(f"The task names the vector {each.name!r}, which was not received.")
        vectors[each.name] = received.vectors[each.name], layout.weight_size
    for name, (vector, size) in vectors.items():
        if vector.shape != (size,) or vector.dtype != np.float32:
            raise HashMismatchError(
                f"Expected a float32 vector of length {size} as {name} for this model, got {vector.dtype} of shape "
                f"{vector.shape}."
            )


def _statistics(task: Task, manifest: ModelManifest, delta: Vector) -> tuple[Section, ...]:
    layout = manifest.layout
    return (task.section("statistics", delta[layout.weight_size :]),) if layout.statistic_size else ()


def _is_finite(*vectors: Vector) -> bool:
    return all(np.isfinite(vector).all() for vector in vectors)


def _diverged(task: Task, trainer: Trainer) -> tuple[Outcome, RunMemory]:
    return unfinished(task, OutcomeStatus.FAILED, Reason.DIVERGED, trainer.version), RunMemory()
