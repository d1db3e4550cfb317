"""A device that trains the received weights on its own data, and then does a task with what it has: personalisation.

Wang et al. 2019, "Federated Evaluation of On-device Personalization": how good a model is for a device once that has
adapted it to itself.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from edgefl.wire.messages import OutcomeStatus, Task
from edgefl_device_runtime.tasks import Arrays, Received, Remembered, TaskResult, Trainer, perform

__all__ = ["perform_tuned"]


def perform_tuned(
    task: Task,
    tuning: Task,
    trainer: Trainer,
    weights: NDArray[np.float32],
    training: Arrays,
    examples: Arrays,
    remembered: Remembered,
) -> TaskResult:
    """Does a task from the weights, and the local parameters, that training on the device's own data leaves.

    Args:
        task: that comes afterwards; what it says it continues does not matter.
        tuning: of kind ``TRAIN``; its sections are not to be written with loss.
        trainer: holds the model.
        weights: from which the training starts, float32 ``[layout.size]``; they stay as they are.
        training: the data that it trains on.
        examples: the data of the task.
        remembered: of the run, for the training.

    Returns:
        The result of the task; where the training was declined or failed, that it was.
    """
    trained = perform(tuning, trainer, Received(weights), training, remembered, minimum_examples=1)
    if trained.outcome.status != OutcomeStatus.DONE:
        return replace(trained, outcome=replace(trained.outcome, task_id=task.task_id))
    delta = np.concatenate([section.vector() for section in trained.outcome.sections])
    after = replace(task, continues=tuning.task_id)
    return perform(after, trainer, Received(weights + delta), examples, trained.remembered, minimum_examples=1)
