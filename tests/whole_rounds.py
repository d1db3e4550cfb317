"""A synchronous round that looks at all its tasks for every decision: what the schedule must agree with.

Pure transitions: every method returns a new round; the time, in seconds since some fixed instant, is passed in. It is
what the server used until a decision read only the rows that it concerns.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum

from edgefl.errors import RunError
from edgefl_server.aggregation.settings import RunSettings

__all__ = ["Assignment", "AssignmentState", "Round", "RoundState", "rest_seconds"]

_FIRST_RETRY_SECONDS, _LONGEST_RETRY_SECONDS = 10.0, 60.0
"""A device that declined or failed is asked again in the same round after a pause that doubles each time."""


class RoundState(str, Enum):
    """Where a round stands."""

    SELECTING = "selecting"
    COLLECTING = "collecting"
    FOLDING = "folding"
    DONE = "done"
    FAILED = "failed"

    @property
    def takes_outcomes(self) -> bool:
        """True while an outcome can still become part of the round."""
        return self in (RoundState.SELECTING, RoundState.COLLECTING)


class AssignmentState(str, Enum):
    """Where one device's task stands."""

    OPEN = "open"
    DONE = "done"
    DECLINED = "declined"
    FAILED = "failed"
    ABANDONED = "abandoned"


@dataclass(frozen=True)
class Assignment:
    """One device's task in a round.

    Attributes:
        device: the device's id.
        attempt: counted from 1 for each device.
        assigned_at: when it was handed out, from when its longest time counts.
        leased_until: an open task whose lease has passed may be taken over by another device.
        state: see `AssignmentState`.
        ended_at: when it left the state OPEN; 0 before.
        temporary: it was declined for a reason that says nothing about the model or the data.
    """

    device: str
    attempt: int
    assigned_at: float
    leased_until: float
    state: AssignmentState = AssignmentState.OPEN
    ended_at: float = 0.0
    temporary: bool = False

    @property
    def failed(self) -> bool:
        """It failed or was declined for good; a device that is merely busy counts for nothing."""
        return self.state in (AssignmentState.DECLINED, AssignmentState.FAILED) and not self.temporary


@dataclass(frozen=True)
class Round:
    """A round and the tasks that it has handed out.

    Attributes:
        settings: the run's.
        state: see `RoundState`.
        assignments: in the order in which they were handed out.
        opened_at: when it began to wait for devices, from when the deadline counts until one comes.
        started_at: when the first task was handed out, from when the deadline counts then; None before.
        why: what ended it, when that was not simply enough outcomes.
        enrolled: devices of the population; 0: not known.
    """

    settings: RunSettings
    state: RoundState = RoundState.SELECTING
    assignments: tuple[Assignment, ...] = ()
    started_at: float | None = None
    why: str = ""
    opened_at: float | None = None
    enrolled: int = 0

    def count(self, state: AssignmentState) -> int:
        """How many tasks are in a state."""
        return sum(assignment.state is state for assignment in self.assignments)

    @property
    def outcomes(self) -> int:
        """Outcomes that will be folded."""
        return self.count(AssignmentState.DONE)

    def busy(self) -> int:
        """Places that are taken: by tasks that are worked on, or by their outcomes."""
        return self.count(AssignmentState.OPEN) + self.outcomes

    @property
    def failures(self) -> int:
        """Devices with a failed task and without an outcome, however often each of them has tried."""
        failed = {assignment.device for assignment in self.assignments if assignment.failed}
        done = {assignment.device for assignment in self.assignments if assignment.state is AssignmentState.DONE}
        return len(failed - done)

    @property
    def deadline(self) -> float | None:
        """When the round closes whatever has come; None: never, or not known yet."""
        since = self.opened_at if self.started_at is None else self.started_at
        if since is None or not self.settings.deadline_seconds:
            return None
        return since + self.settings.deadline_seconds

    def seconds_left(self, assignment: Assignment, now: float) -> float:
        """How long an open task may still take."""
        ends = self._ends(assignment)
        return (ends if self.deadline is None else min(ends, self.deadline)) - now

    def latest(self, device: str) -> Assignment | None:
        """The device's latest task in this round."""
        mine = [assignment for assignment in self.assignments if assignment.device == device]
        return max(mine, key=lambda assignment: assignment.attempt, default=None)

    def assign(self, device: str, now: float) -> Round | None:
        """Hands the device a task, which is then `latest(device)`; None when there is no work for it.

        A free place comes first; else the place of the device whose lease ran out longest ago. A device that was silent
        until its task's longest time was over begins anew, once others had a whole lease to take its place.
        """
        if not self.state.takes_outcomes:
            return None
        current = self._without_overdue(now)
        before = current.latest(device)
        if before is not None and not self._may_try_again(before, now):
            return None
        if before is not None and before.state is AssignmentState.OPEN:
            current = current._with(before, replace(before, state=AssignmentState.ABANDONED, ended_at=now))
        if current.busy() >= self.settings.cohort_size:
            late = [a for a in current.assignments if a.state is AssignmentState.OPEN and a.leased_until < now]
            if not late:
                return None
            latest = min(late, key=lambda assignment: (assignment.leased_until, assignment.device))
            current = current._with(latest, replace(latest, state=AssignmentState.ABANDONED, ended_at=now))
        new = self._leased(Assignment(device, before.attempt + 1 if before else 1, now, now), now)
        started_at = now if current.started_at is None else current.started_at
        return replace(current, assignments=(*current.assignments, new), started_at=started_at)._selected()

    def places(self, now: float) -> int:
        """How many tasks could be handed out now: free places, and those whose lease has run out."""
        if not self.state.takes_outcomes:
            return 0
        current = self._without_overdue(now)
        late = sum(a.state is AssignmentState.OPEN and a.leased_until < now for a in current.assignments)
        return max(0, self.settings.cohort_size - current.busy()) + late

    def renew(self, device: str, now: float) -> Round | None:
        """Extends the lease of the device's open task, never beyond its longest time.

        None when the device has no task that is still wanted.
        """
        mine = self.latest(device)
        if mine is None or mine.state is not AssignmentState.OPEN or not self.state.takes_outcomes:
            return None
        if now >= self._ends(mine):
            return None
        return self._with(mine, self._leased(mine, now))

    def settle(self, device: str, state: AssignmentState, now: float, *, temporary: bool = False) -> Round:
        """Records how the device's open task ended.

        Args:
            device: whose.
            state: DONE, DECLINED or FAILED.
            now: the time.
            temporary: for DECLINED: the device may be ready later.

        Raises:
            RunError: the round no longer takes outcomes, or the device has no open task in it.
        """
        mine = self.latest(device)
        if not self.state.takes_outcomes or mine is None or mine.state is not AssignmentState.OPEN:
            raise RunError(f"Device {device} has no open task in a round that is {self.state.value}.")
        if state not in (AssignmentState.DONE, AssignmentState.DECLINED, AssignmentState.FAILED):
            raise RunError(f"A task cannot be settled as {state.value}.")
        ended = replace(mine, state=state, ended_at=now, temporary=temporary and state is AssignmentState.DECLINED)
        return self._with(mine, ended).advance(now)

    def advance(self, now: float) -> Round:
        """Ends overdue tasks, and the round when it is time: enough outcomes, the deadline, or too many failures."""
        if not self.state.takes_outcomes:
            return self
        settings = self.settings
        if self.outcomes >= settings.target:
            return self._close("")
        current = self._without_overdue(now)
        if current._hopeless():
            devices = "1 device" if current.failures == 1 else f"{current.failures} devices"
            return current._close(f"{devices} failed or declined for good")
        if current.deadline is not None and now >= current.deadline:
            return current._close(f"the deadline of {settings.deadline_seconds:g} s passed")
        return current._selected()

    def stop(self, why: str) -> Round:
        """Ends a round that is not finished; its outcomes will not be folded."""
        if self.state in (RoundState.DONE, RoundState.FAILED):
            return self
        return self._release(RoundState.FAILED, why)

    def folded(self) -> Round:
        """The new weights are kept: the round is done.

        Raises:
            RunError: the round was not folding.
        """
        if self.state is not RoundState.FOLDING:
            raise RunError(f"A round that is {self.state.value} cannot become done.")
        return replace(self, state=RoundState.DONE)

    def _hopeless(self) -> bool:
        """Whether more attempts would fail as well.

        Enough devices have failed, or there are no others: one device alone never ends a round of many, and where it is
        the only one it is not asked for ever.
        """
        most = self.settings.effective_max_failures
        if self.failures >= most:
            return True
        attempts = sum(assignment.failed for assignment in self.assignments)
        return 0 < self.enrolled <= self.failures and attempts >= most

    def _may_try_again(self, before: Assignment, now: float) -> bool:
        if before.state is AssignmentState.DONE:
            return False
        if before.state is AssignmentState.OPEN:
            return now >= max(self._ends(before), before.leased_until + self.settings.lease_seconds)
        if before.state is AssignmentState.ABANDONED:
            return True
        return now >= before.ended_at + retry_seconds(before.attempt)

    def _ends(self, assignment: Assignment) -> float:
        return assignment.assigned_at + self.settings.effective_task_seconds

    def _leased(self, assignment: Assignment, now: float) -> Assignment:
        until = min(now + self.settings.lease_seconds, self._ends(assignment))
        return replace(assignment, leased_until=until)

    def _without_overdue(self, now: float) -> Round:
        """Ends the tasks of devices that kept renewing until the longest time was over.

        A device that fell silent before keeps its task until another one asks for the place: it may have been switched
        off, and come back with an outcome.
        """

        def overdue(each: Assignment) -> bool:
            return each.state is AssignmentState.OPEN and now >= self._ends(each) <= each.leased_until

        if not any(map(overdue, self.assignments)):
            return self
        ended = (replace(a, state=AssignmentState.FAILED, ended_at=now) if overdue(a) else a for a in self.assignments)
        return replace(self, assignments=tuple(ended))

    def _close(self, why: str) -> Round:
        if self.outcomes >= self.settings.effective_minimum:
            return self._release(RoundState.FOLDING, why)
        needed = f"{self.outcomes} of at least {self.settings.effective_minimum} outcomes"
        return self._release(RoundState.FAILED, f"{why}, with {needed}" if why else needed)

    def _release(self, state: RoundState, why: str) -> Round:
        assignments = tuple(
            replace(a, state=AssignmentState.ABANDONED) if a.state is AssignmentState.OPEN else a
            for a in self.assignments
        )
        return replace(self, state=state, assignments=assignments, why=why)

    def _selected(self) -> Round:
        full = self.busy() >= self.settings.cohort_size
        return replace(self, state=RoundState.COLLECTING if full else RoundState.SELECTING)

    def _with(self, old: Assignment, new: Assignment) -> Round:
        return replace(self, assignments=tuple(new if a is old else a for a in self.assignments))


def rest_seconds(settings: RunSettings, times: int) -> float:
    """How long a device leaves places to others after a task of the run that took too long for the n-th time.

    As long as it held one for nothing, then twice as long each time: in a fleet that does without it, a device that
    never finishes delays ever fewer rounds.
    """
    return settings.effective_task_seconds * 2.0 ** min(times - 1, 30)


def retry_seconds(attempt: int) -> float:
    """The pause before a device that gave up its n-th attempt is asked again in the same round."""
    return float(min(_FIRST_RETRY_SECONDS * 2.0 ** min(attempt - 1, 30), _LONGEST_RETRY_SECONDS))
