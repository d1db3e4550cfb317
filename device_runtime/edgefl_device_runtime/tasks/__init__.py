"""Does what a device does with a task, as a function: for the agent, a simulation or an owner's own program.

    from edgefl_device_runtime.tasks import ModelTrainer, Received, perform
    from edgefl_device_runtime.training import TrainableModel

    trainer = ModelTrainer(TrainableModel("model.tflite"))
    result = perform(task, trainer, Received(weights), {"x": x, "y": y})
    result.outcome.section("delta").vector()

No files, sockets or clocks: the agent is one way to get a task and its vectors to here, and the outcome away.
"""

from edgefl_device_runtime.tasks.conditions import (
    ALLOWED,
    MINIMUM_EXAMPLES,
    SUPPORTED_KINDS,
    DeadlinePassedError,
    TaskDeclinedError,
    allowed_kinds,
    capabilities,
    check_allowed,
    check_deadline,
    check_enough,
    check_fits,
    check_supported,
    memory_bytes,
)
from edgefl_device_runtime.tasks.examples import Arrays, Examples, arrange
from edgefl_device_runtime.tasks.model_trainer import ModelTrainer
from edgefl_device_runtime.tasks.outcomes import given_up, reason_for, refusal, unfinished
from edgefl_device_runtime.tasks.performing import Received, TaskResult, perform
from edgefl_device_runtime.tasks.run_memory import MemoryLostError, Remembered, RunMemory
from edgefl_device_runtime.tasks.trainer import Progress, Trainer, Training

__all__ = [
    "ALLOWED",
    "MINIMUM_EXAMPLES",
    "SUPPORTED_KINDS",
    "Arrays",
    "DeadlinePassedError",
    "Examples",
    "MemoryLostError",
    "ModelTrainer",
    "Progress",
    "Received",
    "Remembered",
    "RunMemory",
    "TaskDeclinedError",
    "TaskResult",
    "Trainer",
    "Training",
    "allowed_kinds",
    "arrange",
    "capabilities",
    "check_allowed",
    "check_deadline",
    "check_enough",
    "check_fits",
    "check_supported",
    "given_up",
    "memory_bytes",
    "perform",
    "reason_for",
    "refusal",
    "unfinished",
]
