"""Does jobs in the process that it is in: one interpreter for all devices, and the very functions of a device."""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from edgefl.algorithms import SUMMARY
from edgefl.errors import OutcomeRefusedError
from edgefl.model_file import ModelFile
from edgefl.wire.messages import TaskKind
from edgefl_device_runtime.tasks import Arrays, ModelTrainer, Received, TaskResult, given_up, perform
from edgefl_device_runtime.training import TrainableModel
from edgefl_server.aggregation import Expectation, validate
from edgefl_simulation.attacks import poisoned, relabelled
from edgefl_simulation.engines.base import WEIGHTS, Job, Setup, Tuning, Vectors, Worked
from edgefl_simulation.engines.tuning import perform_tuned
from edgefl_simulation.memories import Memories
from edgefl_simulation.tables import Tables

__all__ = ["Performer"]


class Performer:
    """One interpreter, which is every device in turn.

    Args:
        setup: what all jobs have in common.

    Raises:
        EdgeflError: what `TrainableModel` raises, or a table cannot be read.
    """

    def __init__(self, setup: Setup) -> None:
        self._model = setup.model
        self._trainer = ModelTrainer(TrainableModel(setup.model, runtime=setup.runtime))
        self._tables = Tables(setup.tables)
        self._memories = Memories(setup.memories)
        self._expected = setup.expected

    def do(self, job: Job, vectors: Vectors) -> Worked:
        """Does a job, as a device and then as the server that takes its outcome.

        Args:
            job: that is to be done.
            vectors: that were published under its base.
        """
        task = job.task
        if job.tuning is None:
            further = {each.name: vectors[each.name] for each in task.extra_vectors}
            result = perform(
                task,
                self._trainer,
                Received(vectors[WEIGHTS], further),
                self._examples(job),
                self._memories.recall(task),
                minimum_examples=job.minimum_examples,
            )
        else:
            result = self._tuned(job, job.tuning, vectors)
        if memory := result.remembered.get(task.task_id):
            self._memories.keep(task, memory)
        self._tables.release(job.rows)
        outcome, error = result.outcome, result.error
        if job.attack is not None:
            outcome = poisoned(job.attack, task, outcome, vectors[WEIGHTS], self._initial)
        bytes_up = sum(len(section.payload) for section in outcome.sections)
        try:
            update = validate(outcome, self._expectation(job))
        except OutcomeRefusedError as refused:
            # What a device sends when the server refuses its outcome.
            outcome, update, error = given_up(outcome, refused.reason), None, refused
        return Worked(replace(outcome, sections=()), update, "" if error is None else str(error), bytes_up)

    def _tuned(self, job: Job, tuning: Tuning, vectors: Vectors) -> TaskResult:
        result = perform_tuned(
            job.task,
            tuning.task,
            self._trainer,
            vectors[WEIGHTS],
            self._tables.read(tuning.rows),
            self._examples(job),
            self._memories.recall(tuning.task),
        )
        self._tables.release(tuning.rows)
        return result

    def _examples(self, job: Job) -> Arrays:
        rows = self._tables.read(job.rows)
        return rows if job.attack is None else relabelled(job.attack, job.task, rows, self._trainer.manifest)

    @cached_property
    def _initial(self) -> NDArray[np.float32]:
        """The weights of the model file, which only attackers ask for."""
        return ModelFile.read(self._model).initial_weights()

    def _expectation(self, job: Job) -> Expectation:
        task = job.task
        return replace(
            self._expected,
            task_id=task.task_id,
            base_weights_hash=task.base_weights_hash,
            # What sums up data is written with no codec.
            sections=tuple(each.section for each in task.codecs) or ((SUMMARY,) * (task.kind is TaskKind.STATISTICS)),
            codecs=task.codecs,
        )
