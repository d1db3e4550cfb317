"""From the end of which task each device goes on, as a server says it: its latest that was accepted and counts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from edgefl.codecs import codec
from edgefl_server.aggregation import Demand
from edgefl_simulation.cohorts import AcceptedUpdate
from edgefl_simulation.plans import Checkpoint, Plan

__all__ = ["Continuing"]


class Continuing:
    """The memories that devices have of a run, by the ids of tasks.

    Args:
        folded: each device's latest task that is part of the weights.
        remembers: whether devices keep anything. A list of all who ever took part would else only grow.

    Attributes:
        folded: the same, as folds go on.
    """

    def __init__(self, folded: Mapping[str, str], *, remembers: bool) -> None:
        self.folded = dict(folded)
        self._remembers = remembers
        self._accepted: dict[str, str] = {}

    @classmethod
    def of(cls, plan: Plan, demand: Demand, checkpoint: Checkpoint) -> Continuing:
        """As a run left it."""
        local, codec_of = bool(plan.manifest.local_parameters), codec(plan.settings.codec)
        return cls(checkpoint.folded, remembers=local or demand.needs.corrected or codec_of.memory)

    def task(self, device: str) -> str:
        """The task from the end of which its next one goes on; empty: from none."""
        return self._accepted.get(device) or self.folded.get(device, "")

    def accepted(self, update: AcceptedUpdate) -> None:
        """It will be folded, unless its fold fails."""
        if self._remembers:
            self._accepted[update.flight.device] = update.flight.task_id

    def counting(self, accepted: Sequence[AcceptedUpdate]) -> tuple[list[AcceptedUpdate], str]:
        """Leaves out what devices made that had gone on from a task that was discarded since.

        Returns:
            The rest, and why it is not all; empty: it is.
        """
        counts, found = set(self.folded.values()) | {""}, list[AcceptedUpdate]()
        for each in accepted:  # a device's come one after the other
            if not self._remembers or each.continues in counts:
                counts.add(each.flight.task_id)
                found.append(each)
        lost = len(accepted) - len(found)
        return found, f"{lost} accepted outcomes go on from others that do not count and are left out" if lost else ""

    def fold(self, folded: Iterable[AcceptedUpdate]) -> None:
        """They are part of the weights."""
        if self._remembers:
            self.folded.update({each.flight.device: each.flight.task_id for each in folded})

    def discard(self) -> None:
        """Forgets what was accepted and not folded."""
        self._accepted.clear()
