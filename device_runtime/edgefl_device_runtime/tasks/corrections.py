"""Does what a task's correction (SCAFFOLD, FedDyn) asks of a device, before and after the local steps."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edgefl.algorithms import CONTROL
from edgefl.errors import HashMismatchError
from edgefl.manifest import ModelManifest
from edgefl.wire.messages import Correction, Section, Task
from edgefl_device_runtime.tasks.control_variates import (
    feddyn_correction,
    feddyn_memory,
    scaffold_change,
    scaffold_correction,
)

__all__ = ["control_after", "correction_for", "learning_rate_of"]

Vector = NDArray[np.float32]


def correction_for(task: Task, manifest: ModelManifest, control: Vector | None, own: Vector | None) -> Vector | None:
    """Computes what is added to the gradient in every local step; None: nothing.

    Args:
        task: names the algorithm.
        manifest: the model's.
        control: SCAFFOLD's ``c``, float32 ``[weight_size]``.
        own: SCAFFOLD's ``c_i`` or FedDyn's ``h_i`` from the run's last task; None: zeros.

    Raises:
        HashMismatchError: a vector has another length.
    """
    if task.correction is Correction.NONE:
        return None
    own = _fitting(own, manifest)
    if task.correction is Correction.FEDDYN:
        return feddyn_correction(own)
    return scaffold_correction(_fitting(control, manifest), own)


def control_after(
    task: Task,
    manifest: ModelManifest,
    control: Vector | None,
    own: Vector | None,
    trained: Vector,
    sent: Section,
    steps: int,
) -> tuple[Vector | None, tuple[Section, ...]]:
    """Computes what the device keeps after the local steps, and what it sends beside the delta.

    Both follow from vectors as the server reads them, so that the sum that the server keeps and the devices' own do not
    drift apart by what the codec rounds.

    Args:
        task: names the algorithm.
        manifest: the model's.
        control: as for `correction_for`.
        own: as for `correction_for`.
        trained: trained minus received, float32 ``[weight_size]``.
        sent: the section ``delta``.
        steps: local steps that were taken.

    Returns:
        The new ``c_i`` or ``h_i``, None without a correction; and further sections.
    """
    if task.correction is Correction.NONE:
        return None, ()
    own = _fitting(own, manifest)
    if task.correction is Correction.FEDDYN:
        return feddyn_memory(own, sent.vector(), task.mu), ()
    change = scaffold_change(_fitting(control, manifest), trained, steps, learning_rate_of(task, manifest))
    section = task.section(CONTROL, change)
    return own + section.vector(), (section,)


def learning_rate_of(task: Task, manifest: ModelManifest) -> float:
    """Returns the task's learning rate, else the model's."""
    return manifest.learning_rate if task.learning_rate is None else task.learning_rate


def _fitting(vector: Vector | None, manifest: ModelManifest) -> Vector:
    size = manifest.layout.weight_size
    if vector is None:
        return np.zeros(size, np.float32)
    if vector.shape != (size,):
        raise HashMismatchError(f"Expected a control vector of length {size} for this model, got {vector.size}.")
    return vector
