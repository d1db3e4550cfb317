"""Updates as strategies see them: one, and the ordered collection of those that are folded together.

All the updates of a fold need not fit into memory. A strategy that adds them up iterates and has one of them at a time;
one that looks at each element of all of them (a median, a trimmed mean) asks for blocks of elements.
"""

from __future__ import annotations

import itertools
import os
import tempfile
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgefl.errors import RunError
from edgefl.summaries import Summary
from edgefl.wire.messages import MetricState

__all__ = ["Columns", "Contribution", "FoldError", "Update", "Updates", "in_order", "without_basis"]

_IN_MEMORY = 32 << 20
"""More bytes of a section of all updates than this lie in a temporary file while their blocks are looked at."""
_ELEMENTS = 1 << 20
"""The bytes of a block, all updates together."""
_NOTHING = np.empty(0, np.float32)


class FoldError(RunError):
    """The updates of a fold cannot be merged, and trying again would not help: the fold fails with this reason."""


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
        steps: optimizer steps that the device made, as it says; 0: not known.
        summary: of the device's data, where that was asked for.
    """

    task_id: str
    num_examples: int
    sections: Mapping[str, NDArray[np.float32]]
    staleness: int = 0
    metrics: tuple[MetricState, ...] = ()
    steps: int = 0
    summary: Summary | None = None

    def begun(self, version: int, *, newest: int) -> Update:
        """The update of a task that began from a version of the weights, when it is merged into the newest."""
        return replace(self, staleness=newest - version)

    def mixed(self, base: NDArray[np.float32], newest: NDArray[np.float32]) -> Update:
        """The update as the difference between the trained model and the newest one, as FedAsync mixes them.

        Args:
            base: what its task started from, float32 ``[weight_size + statistic_size]``.
            newest: the weights that it is merged into, of the same shape.
        """
        drift, changed = base - newest, dict(self.sections)
        if "delta" in changed:
            changed["delta"] = changed["delta"] + drift[: self.delta.size]
        if "statistics" in changed:
            changed["statistics"] = changed["statistics"] + drift[drift.size - self.statistics.size :]
        return replace(self, sections=changed)

    def scaled(self, factor: float) -> Update:
        """The update times a factor, section by section in float32."""
        if factor == 1:
            return self
        by = np.float32(factor)
        return replace(self, sections={name: vector * by for name, vector in self.sections.items()})

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
        staleness: how many versions the weights have gone on since its task started from them.
        base: reads what its task started from, float32 ``[weight_size + statistic_size]``, for strategies that mix
            models; None: it is not kept.
    """

    task_id: str
    num_examples: int
    read: Callable[[], Update]
    accepted: int = 0
    staleness: int = 0
    base: Callable[[], NDArray[np.float32]] | None = None


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

    def columns(self, section: str) -> Columns:
        """A section of all updates, to be looked at element by element as often as needed. Every update is read once.

        Args:
            section: its name; all updates must have the same number of elements of it.

        Raises:
            OSError: the temporary file cannot be written.
        """
        matrix, facts = _NOTHING.reshape(0, 0), []
        for row, update in enumerate(self):
            vector = update.section(section)
            if row == 0:
                matrix = self._matrix(len(self), vector.size)
            matrix[row] = vector
            facts.append(replace(update, sections={}))
        return Columns(matrix, tuple(facts))

    def blocks(self, section: str) -> Iterator[tuple[slice, NDArray[np.float32]]]:
        """A section of all updates, block by block of its elements: see `Columns.blocks`.

        Raises:
            OSError: the temporary file cannot be written.
        """
        return self.columns(section).blocks()

    def _matrix(self, rows: int, size: int) -> NDArray[np.float32]:
        if 4 * rows * size <= _IN_MEMORY:
            return np.empty((rows, size), np.float32)
        with tempfile.TemporaryFile(dir=self.scratch) as file:
            # A disk without space is an error here; later it would be a signal that ends the process.
            os.posix_fallocate(file.fileno(), 0, 4 * rows * size)
            return np.memmap(file, np.float32, "r+", shape=(rows, size))


@dataclass(frozen=True, eq=False)
class Columns:
    """A section of all updates, a row an update; large ones lie in a file without a name that is gone with this.

    Attributes:
        facts: the updates without their vectors.
    """

    _matrix: NDArray[np.float32]
    facts: tuple[Update, ...]

    @property
    def size(self) -> int:
        """Elements of the section."""
        return self._matrix.shape[1]

    def blocks(self) -> Iterator[tuple[slice, NDArray[np.float32]]]:
        """The section block by block of its elements.

        Memory for 2²⁰ elements, or for one element of all updates, is enough.

        Yields:
            Which elements, and a float32 array ``[updates, elements]`` of them, a row an update; it is the caller's.
        """
        at_once = max(1, _ELEMENTS // (len(self.facts) + 1))
        for start in range(0, self.size, at_once):
            part = slice(start, min(start + at_once, self.size))
            yield part, np.array(self._matrix[:, part])
