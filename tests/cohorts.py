"""A cohort in memory under a schedule: counts, and looks up the tasks that a decision concerns, as the storage does."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

from edgefl_server.aggregation import RunSettings, root_device_of
from edgefl_server.aggregation.schedules import (
    Assignment,
    AssignmentState,
    Change,
    Concerned,
    FoldState,
    Schedule,
    Standing,
    Synchronous,
)

__all__ = ["Cohort"]

OPEN = AssignmentState.OPEN


@dataclass(frozen=True)
class Cohort:
    settings: RunSettings
    standing: Standing = field(default_factory=Standing)
    assignments: tuple[Assignment, ...] = ()
    make: Callable[[RunSettings], Schedule] = Synchronous

    @property
    def schedule(self) -> Schedule:
        return self.make(self.settings)

    @property
    def state(self) -> FoldState:
        return self.standing.state

    @property
    def why(self) -> str:
        return self.standing.why

    @property
    def failures(self) -> int:
        return self.standing.failed_devices

    def count(self, state: AssignmentState) -> int:
        return sum(each.state is state for each in self.assignments)

    def latest(self, device: str) -> Assignment | None:
        mine = [each for each in self.assignments if each.device == device]
        return max(mine, key=lambda each: each.attempt, default=None)

    def concerned(self, device: str | None, now: float) -> Concerned:
        root = root_device_of(self.settings)
        open_ones = [each for each in self.assignments if each.state is OPEN and each.device != root]
        overdue = [each for each in open_ones if each.leased_to_the_end and each.leased_until <= now]
        late = [each for each in open_ones if not each.leased_to_the_end and each.leased_until < now]
        return Concerned(
            None if device is None else self.latest(device),
            tuple(sorted(overdue, key=lambda each: (each.leased_until, each.device))),
            min(late, key=lambda each: (each.leased_until, each.device), default=None),
            root=self.latest(root) if root else None,
        )

    def assign(self, device: str, now: float) -> Cohort | None:
        return self._after(self.schedule.assign(self.standing, self.concerned(device, now), device, now))

    def places(self, now: float) -> int:
        open_ones = [each for each in self.assignments if each.state is OPEN]
        late = sum(not each.leased_to_the_end and each.leased_until < now for each in open_ones)
        return self.schedule.places(self.standing, len(self.concerned(None, now).overdue), late)

    def renew(self, device: str, now: float) -> Cohort | None:
        return self._after(self.schedule.renew(self.standing, self.latest(device), now))

    def settle(self, device: str, state: AssignmentState, now: float, *, temporary: bool = False) -> Cohort:
        concerned = self.concerned(device, now)
        after = self._after(self.schedule.settle(self.standing, concerned, state, now, temporary=temporary))
        assert after is not None
        return after

    def advance(self, now: float) -> Cohort:
        return self._after(self.schedule.advance(self.standing, self.concerned(None, now), now)) or self

    def stop(self, why: str) -> Cohort:
        return self._after(self.schedule.stop(self.standing, why)) or self

    def folded(self) -> Cohort:
        return replace(self, standing=self.schedule.folded(self.standing))

    def _after(self, change: Change | None) -> Cohort | None:
        if change is None:
            return None
        changed = {(each.device, each.attempt): each for each in change.changed}
        assert len(changed) == len(change.changed)
        assignments = [changed.pop((each.device, each.attempt), each) for each in self.assignments]
        assert not changed
        if change.released:
            released = AssignmentState.ABANDONED
            assignments = [replace(each, state=released) if each.state is OPEN else each for each in assignments]
        if change.assigned is not None:
            assert not change.released
            assignments.append(change.assigned)
        return replace(self, standing=change.standing, assignments=tuple(assignments))
