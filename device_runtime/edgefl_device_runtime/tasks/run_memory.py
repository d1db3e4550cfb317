"""The memory that a device has of a run: parameters that never leave it, its control variate, and a codec's residual.

Which memory counts is the server's to say, since only it knows which outcomes come to count: a task names the device's
latest accepted task of the run (`Task.continues`), and goes on from what the device kept at the end of that one. What
was kept of tasks that were refused, came too late or were discarded is then never used. It also names the earlier ones
that may still be asked for (`Task.outstanding`); the memories of all others go.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from edgefl.errors import EdgeflError
from edgefl.manifest import ModelManifest
from edgefl.wire.messages import Correction, Task

__all__ = ["MemoryLostError", "Remembered", "RunMemory", "recall", "remember"]


class MemoryLostError(EdgeflError):
    """The memory that the server says this device has of the run is not there any more."""


_LOCAL = "local/"
_VECTORS = ("control", "residual")


@dataclass(frozen=True, eq=False)
class RunMemory:
    """A run as a device remembers it at the end of one of its tasks; empty before the first.

    Attributes:
        local: parameters that are not shared, by name; those that are missing have the model file's initial values.
        control: SCAFFOLD's ``c_i`` or FedDyn's ``h_i``, float32 ``[weight_size]``; None: zeros.
        residual: what a codec with a memory has left out of the deltas so far, float32 ``[weight_size]``; None: zeros.
    """

    local: Mapping[str, NDArray[np.float32]] = field(default_factory=dict)
    control: NDArray[np.float32] | None = None
    residual: NDArray[np.float32] | None = None

    @property
    def vectors(self) -> tuple[NDArray[np.float32], ...]:
        """All that is remembered; nothing for a model and an algorithm that need no memory."""
        return tuple(self.to_arrays().values())

    def to_arrays(self) -> dict[str, NDArray[np.float32]]:
        """Names everything that is remembered, for a file."""
        named = ((name, getattr(self, name)) for name in _VECTORS)
        return {
            **{f"{_LOCAL}{name}": array for name, array in self.local.items()},
            **{name: vector for name, vector in named if vector is not None},
        }

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[np.float32]]) -> RunMemory:
        """Makes the memory of what `to_arrays` returned.

        Raises:
            ValueError: it is something else.
        """
        local = {name[len(_LOCAL) :]: array for name, array in arrays.items() if name.startswith(_LOCAL)}
        vectors = {name: arrays[name] for name in _VECTORS if name in arrays}
        if len(local) + len(vectors) < len(arrays):
            raise ValueError(f"it has arrays {', '.join(arrays):.80}")
        return cls(local, **vectors)


Remembered = Mapping[str, RunMemory]
"""Everything that a device remembers of one run, by the id of the task at whose end it was so."""


def recall(task: Task, manifest: ModelManifest, remembered: Remembered) -> RunMemory:
    """Finds the memory that a task goes on from.

    Raises:
        MemoryLostError: there should be one. Zeros instead would be wrong in silence: what the server keeps of the run
            still holds this device's part. A residual alone may be lost: what it held back then never comes.
    """
    if not task.continues:
        return RunMemory()
    if task.continues in remembered:
        return remembered[task.continues]
    if manifest.local_parameters or task.correction is not Correction.NONE:
        raise MemoryLostError(
            f"What this device kept of the run {task.run} is lost or damaged, so it cannot go on with it.",
            hint="Other runs are not concerned. If the state folder was not exchanged, look after its disk.",
        )
    return RunMemory()


def remember(task: Task, remembered: Remembered, after: RunMemory) -> dict[str, RunMemory]:
    """Makes what a device remembers of a run once a task is done: that, and what a later task may go on from.

    The latter are the memory that the task went on from, which the next task will name if this one's outcome does not
    come to count, and those of the tasks that it says are outstanding. Others are never asked for again.

    Args:
        task: that was done.
        remembered: before it.
        after: at its end; an empty one is not kept.
    """
    kept = (task.continues, *task.outstanding)
    before = {name: memory for name, memory in remembered.items() if name in kept}
    return {**before, task.task_id: after} if after.vectors else before
