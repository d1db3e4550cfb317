"""Updates as strategies see them: one, and the ordered collection of those that are folded together.

All the updates of a fold need not fit into memory. A strategy that adds them up iterates and has one of them at a time;
one that looks at each element of all of them (a median, a trimmed mean) asks for blocks of elements.
"""

from __future__ import annotations

import contextlib
import itertools
import tempfile
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgefl.errors import RunError
from edgefl.summaries import Summary
from edgefl.wire.messages import MetricState

__all__ = ["Contribution", "Update", "Updates", "in_order", "without_basis"]

_IN_MEMORY = 32 << 20
"""More bytes of a section of all updates than this lie in a temporary file while their blocks are looked at."""
_ELEMENTS = 1 << 20
"""The bytes of a block, all updates together."""
_NOTHING = np.empty(0, np.float32)


@dataclass(frozen=True)
class Update:
    """One device's contribution, decoded and validated.

    Attributes:
        task_id: whose.
        num_examples: as they count, which may be less than the device says.
        sections: float32 vectors by name, those that the strategy asks for: ``delta`` (trained minus received, of role
            ``weight``, ``[weight_size]``), ``statistics`` (the same of role ``statistic``, already in their range,
            ``[statistic_size]``; absent where the model has none), ``control``, ``gradient``.
        staleness: how many versions the weights have gone on since the task started from them; 0 in a synchronous run.
        metrics: metric states, as the device sent them.
        summary: of the device's data, where that was asked for.
    """

    task_id: str
    num_examples: int
    sections: Mapping[str, NDArray[np.float32]]
    staleness: int = 0
    metrics: tuple[MetricState, ...] = ()
    summary: Summary | None = None

    def begun(self, version: int, *, newest: int) -> Update:
        """The update of a task that began from a version of the weights, when it is merged into the newest."""
        return replace(self, staleness=newest - version)

    def section(self, name: str) -> NDArray[np.float32]:
        """A section; without elements where there is none of the name."""
        return self.sections.get(name, _NOTHING)

    @property
    def delta(self) -> NDArray[np.float32]:
        """Trained minus received, of role ``weight``."""
        return self.section("delta")

    @property
    def statistics(self) -> NDArray[np.float32]:
        """Trained minus received, of role ``statistic``."""
        return self.section("statistics")


@dataclass(frozen=True)
class Contribution:
    """An accepted update that is read when it is needed.

    Attributes:
        task_id: whose.
        num_examples: as the device says.
        read: the update; is called once by a strategy that only adds up, and once more where medians are needed.
        accepted: its place in the committed order of acceptance, where this is the order of a fold; else 0.
    """

    task_id: str
    num_examples: int
    read: Callable[[], Update]
    accepted: int = 0


def in_order(contributions: Iterable[Contribution]) -> list[Contribution]:
    """Contributions in the order in which they are folded, whatever order they come in."""
    return sorted(contributions, key=_place)


def without_basis(bases: Mapping[str, str], gone: Collection[str]) -> set[str]:
    """The tasks whose devices went on from something that does not count, directly or through other tasks.

    What a device remembers of a run (local parameters, a control variate) then holds more than the weights do.

    Args:
        bases: the task that each task of a fold goes on from; empty: none.
        gone: tasks that do not count.
    """
    found: set[str] = set()
    while True:
        more = {task for task, basis in bases.items() if basis in gone or basis in found} - found
        if not more:
            return found
        found |= more


def _place(of: Contribution) -> tuple[int, str]:
    return of.accepted, of.task_id


def _as_it_is(update: Update) -> Update:
    return update


@dataclass(frozen=True)
class Updates:
    """The updates of a fold, in its order, as often as they are asked for; no more than one of them is in memory.

    The order is that of acceptance where the schedule has one (`Contribution.accepted`), else that of task ids, so that
    the result of a sum does not depend on arrival.

    Attributes:
        contributions: in ascending order.
        scratch: folder for temporary files without a name; None: the system's.
        change: what becomes of each update once it is read: caps, bounds, clipping.

    Raises:
        RunError: the contributions are in another order.
    """

    contributions: Sequence[Contribution]
    scratch: Path | None = None
    change: Callable[[Update], Update] = field(default=_as_it_is, repr=False)

    def __post_init__(self) -> None:
        for before, after in itertools.pairwise(self.contributions):
            if _place(after) <= _place(before):
                order = "task-id order" if before.accepted == after.accepted else "the order of their acceptance"
                raise RunError(f"Outcomes are folded in {order}, got {after.task_id} after {before.task_id}.")

    @classmethod
    def of(cls, updates: Iterable[Update]) -> Updates:
        """A collection of updates that are in memory.

        Args:
            updates: in ascending order of their task ids.
        """

        def contribution(update: Update) -> Contribution:
            return Contribution(update.task_id, update.num_examples, lambda: update)

        return cls([contribution(each) for each in updates])

    def __len__(self) -> int:
        return len(self.contributions)

    def __iter__(self) -> Iterator[Update]:
        for each in self.contributions:
            yield self.change(each.read())

    def changed(self, change: Callable[[Update], Update]) -> Updates:
        """The same updates, each changed once it is read: a part that clips or caps is such a function."""
        before = self.change
        return Updates(self.contributions, self.scratch, lambda update: change(before(update)))

    def blocks(self, section: str) -> Iterator[tuple[slice, NDArray[np.float32]]]:
        """A section of all updates, block by block of its elements.

        Every update is read once; memory for 2²⁰ elements, or for one element of all updates, is enough.

        Args:
            section: its name; all updates must have the same number of elements of it.

        Yields:
            Which elements, and a float32 array ``[len(self), elements]`` of them, a row an update; it is the caller's.

        Raises:
            OSError: the temporary file cannot be written.
        """
        with contextlib.ExitStack() as stack:
            matrix = _NOTHING.reshape(0, 0)
            for row, update in enumerate(self):
                vector = update.section(section)
                if row == 0:
                    shape = len(self), vector.size
                    if 4 * shape[0] * shape[1] <= _IN_MEMORY:
                        matrix = np.empty(shape, np.float32)
                    else:
                        file = stack.enter_context(tempfile.TemporaryFile(dir=self.scratch))
                        matrix = np.memmap(file, np.float32, "w+", shape=shape)
                matrix[row] = vector
            size = matrix.shape[1]
            at_once = max(1, _ELEMENTS // (len(self) + 1))
            for start in range(0, size, at_once):
                part = slice(start, min(start + at_once, size))
                yield part, np.array(matrix[:, part])
