"""Updates as strategies see them: one, and the ordered collection of those that are folded together.

All the updates of a fold need not fit into memory. A strategy that adds them up goes over them in groups; one that
looks at each element of all of them (a median, a trimmed mean) asks for blocks of elements. Of a section that lies in a
file as it is (`Stored`) only the piece is read that is worked on, which then stays in the processor's cache.
"""

from __future__ import annotations

import itertools
import os
import tempfile
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from edgefl.errors import RunError
from edgefl.summaries import Summary
from edgefl.wire.messages import MetricState

__all__ = ["Columns", "Contribution", "FoldError", "Stored", "Update", "Updates", "in_order", "without_basis"]

_IN_MEMORY = 32 << 20
"""More bytes of a section of all updates than this lie in a temporary file while their blocks are looked at."""
_ELEMENTS = 1 << 20
"""The bytes of a block, all updates together."""
_GROUP = 64
"""Updates that are added up together, piece by piece: the sum comes into the cache once for all of them."""
_HELD = 4 << 20
"""Bytes of updates that were read into memory to be one group; a larger one is a group of its own."""
_NOTHING = np.empty(0, np.float32)


class FoldError(RunError):
    """The updates of a fold cannot be merged, and trying again would not help: the fold fails with this reason."""


class Stored(Protocol):
    """A section that lies elsewhere as float32, of which single pieces can be read."""

    @property
    def size(self) -> int:
        """Its elements."""
        ...

    def read(self, part: slice, out: NDArray[np.float32]) -> None:
        """Reads elements from ``part.start`` to before ``part.stop`` into an array of as many.

        Raises:
            EdgeflError: they cannot be read.
        """
        ...


@dataclass(frozen=True)
class Update:
    """One device's contribution, decoded and validated.

    Attributes:
        task_id: whose.
        num_examples: as they count, which may be less than the device says.
        sections: float32 vectors by name, those that the strategy asks for: ``delta`` (trained minus received, of role
            ``weight``, ``[weight_size]``), ``statistics`` (the same of role ``statistic``, already in their range,
            ``[statistic_size]``; absent where the model has none), ``control``, ``gradient``. `section` and `piece`
            read what is `Stored`.
        staleness: how many versions the weights have gone on since the task started from them; 0 in a synchronous run.
        metrics: metric states, as the device sent them.
        steps: optimizer steps that the device made, as it says; 0: not known.
        summary: of the device's data, where that was asked for.
    """

    task_id: str
    num_examples: int
    sections: Mapping[str, NDArray[np.float32] | Stored]
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
            changed["delta"] = self.delta + drift[: self.size("delta")]
        if "statistics" in changed:
            changed["statistics"] = self.statistics + drift[drift.size - self.size("statistics") :]
        return replace(self, sections=changed)

    def scaled(self, factor: float) -> Update:
        """The update times a factor, section by section in float32."""
        if factor == 1:
            return self
        by = np.float32(factor)
        return replace(self, sections={name: self.section(name) * by for name in self.sections})

    def section(self, name: str) -> NDArray[np.float32]:
        """A section; without elements where there is none of the name."""
        found = self.sections.get(name, _NOTHING)
        if isinstance(found, np.ndarray):
            return found
        whole = np.empty(found.size, np.float32)
        found.read(slice(0, found.size), whole)
        return whole

    def size(self, name: str) -> int:
        """The elements of a section, which is not read for that."""
        return self.sections.get(name, _NOTHING).size

    def piece(self, name: str, part: slice, out: NDArray[np.float32]) -> NDArray[np.float32]:
        """Some elements of a section, of which no others are read.

        Args:
            name: the section's.
            part: from where to before where.
            out: float32 of as many elements, which may be used for them.

        Returns:
            The elements, in ``out`` or where they lie.
        """
        found = self.sections.get(name, _NOTHING)
        if isinstance(found, np.ndarray):
            return found[part]
        found.read(part, out)
        return out

    @property
    def held(self) -> int:
        """The bytes of its sections that are in memory."""
        return sum(each.nbytes for each in self.sections.values() if isinstance(each, np.ndarray))

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
        kept: what it reads is in memory anyway.
    """

    task_id: str
    num_examples: int
    read: Callable[[], Update]
    accepted: int = 0
    staleness: int = 0
    base: Callable[[], NDArray[np.float32]] | None = None
    kept: bool = False


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
            return Contribution(update.task_id, update.num_examples, lambda: update, kept=True)

        return cls([contribution(each) for each in updates])

    def __len__(self) -> int:
        return len(self.contributions)

    def __iter__(self) -> Iterator[Update]:
        for each in self.contributions:
            yield self.change(each.read())

    def groups(self) -> Iterator[list[Update]]:
        """The updates as `__iter__` has them, several at a time where that costs no memory.

        Yields:
            At least one. The list is emptied when the next is asked for, so that nothing is in memory twice.
        """
        group: list[Update] = []
        held = 0
        for each in self.contributions:
            update = self.change(each.read())
            held += 0 if each.kept else update.held
            group.append(update)
            del update
            if len(group) == _GROUP or held > _HELD:
                yield group
                group.clear()
                held = 0
        if group:
            yield group

    def changed(self, change: Callable[[Update], Update]) -> Updates:
        """The same updates, each changed once it is read: a part that clips or caps is such a function."""
        before = self.change
        return Updates(self.contributions, self.scratch, lambda update: change(before(update)))

    def columns(self, section: str) -> Columns:
        """A section of all updates, to be looked at element by element as often as needed.

        Every update is read once; those that must be kept for that lie in a file where they are large.

        Args:
            section: its name; all updates must have the same number of elements of it.

        Raises:
            OSError: the temporary file cannot be written.
        """
        matrix: NDArray[np.float32] | None = None
        rows: list[NDArray[np.float32] | Stored] = []
        facts = []
        for row, each in enumerate(self.contributions):
            read = each.read()
            update = self.change(read)
            found = update.sections.get(section, _NOTHING)
            own = found is read.sections.get(section)
            if isinstance(found, np.ndarray) and not (each.kept and own):
                if matrix is None:
                    matrix = self._matrix(len(self), found.size)
                matrix[row] = found
                found = matrix[row]
            rows.append(found)
            facts.append(replace(update, sections={}))
        return Columns(tuple(rows), tuple(facts))

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
    """A section of all updates, a row an update; the file of large ones has no name and is gone with this.

    Attributes:
        rows: each update's.
        facts: the updates without their vectors.
    """

    rows: tuple[NDArray[np.float32] | Stored, ...]
    facts: tuple[Update, ...]

    @property
    def size(self) -> int:
        """Elements of the section."""
        return self.rows[0].size if self.rows else 0

    def blocks(self) -> Iterator[tuple[slice, NDArray[np.float32]]]:
        """The section block by block of its elements.

        Memory for 2²⁰ elements, or for one element of all updates, is enough.

        Yields:
            Which elements, and a float32 array ``[updates, elements]`` of them, a row an update; it is the caller's.
        """
        at_once = max(1, _ELEMENTS // (len(self.facts) + 1))
        for start in range(0, self.size, at_once):
            part = slice(start, min(start + at_once, self.size))
            block = np.empty((len(self.rows), part.stop - start), np.float32)
            for row, target in zip(self.rows, block, strict=True):
                if isinstance(row, np.ndarray):
                    target[:] = row[part]
                else:
                    row.read(part, target)
            yield part, block
