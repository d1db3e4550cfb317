"""The protocol of schedules: who gets which task when, what is folded together, when that is over.

A schedule is pure: it is told how a cohort stands, in a few numbers, and the few tasks that a question concerns, and it
says what changes. So a decision costs the same whether the cohort has ten devices or ten thousand. Times are seconds
since some fixed instant and are passed in.

Whoever calls it (a server's storage, a simulation) keeps what it says and decides nothing itself: it asks `assign`,
`renew` and `settle` for a device, `advance` as time goes by, `lose` and `folded` when a fold is merged, and `stop` when
its run ends.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum
from typing import Protocol

from edgefl.wire.vocabulary import OutcomeStatus, Reason
from edgefl_server.aggregation.selecting import Admission

__all__ = ["Assignment", "AssignmentState", "Change", "Concerned", "FoldState", "Schedule", "Standing", "ending"]

_TEMPORARY = (Reason.BUSY, Reason.NOT_READY)
"""They say nothing about the model or the data: the device may do the same task later."""


class FoldState(str, Enum):
    """The states of a fold: it is waited for (with places left or none), merged, or over."""

    SELECTING = "selecting"
    COLLECTING = "collecting"
    FOLDING = "folding"
    DONE = "done"
    FAILED = "failed"

    @property
    def takes_outcomes(self) -> bool:
        """True while an outcome can still become part of the fold."""
        return self in (FoldState.SELECTING, FoldState.COLLECTING)


class AssignmentState(str, Enum):
    """The states of one device's task."""

    OPEN = "open"
    DONE = "done"
    DECLINED = "declined"
    FAILED = "failed"
    OUT_OF_TIME = "out_of_time"
    """Its longest time was over although its device still renewed it; nobody sent an outcome."""
    ABANDONED = "abandoned"


_ENDED = {
    OutcomeStatus.DONE: AssignmentState.DONE,
    OutcomeStatus.DECLINED: AssignmentState.DECLINED,
    OutcomeStatus.FAILED: AssignmentState.FAILED,
}


def ending(status: OutcomeStatus, reason: Reason | int) -> tuple[AssignmentState, bool]:
    """Says how an outcome ends its task, and whether only for now: the arguments of `Schedule.settle`."""
    return _ENDED[status], status is OutcomeStatus.DECLINED and reason in _TEMPORARY


@dataclass(frozen=True)
class Assignment:
    """One device's task in a cohort.

    Attributes:
        device: the device's id.
        attempt: counted from 1 for each device.
        assigned_at: when it was handed out.
        ends_at: when its longest time is over.
        leased_until: an open task whose lease has passed may be taken over by another device.
        state: see `AssignmentState`.
        ended_at: when it left the state OPEN; 0 before.
        temporary: it was declined for a reason that says nothing about the model or the data.
        failed_before: an earlier task of the device in the cohort failed, and no later one was done.
        version: of the weights that it starts from.
        turn: how many outcomes of the device in the cohort were accepted before it was handed out.
    """

    device: str
    attempt: int
    assigned_at: float
    ends_at: float
    leased_until: float
    state: AssignmentState = AssignmentState.OPEN
    ended_at: float = 0.0
    temporary: bool = False
    failed_before: bool = False
    version: int = 0
    turn: int = 0

    @classmethod
    def of(
        cls,
        device: str,
        before: Assignment | None,
        *,
        assigned_at: float,
        ends_at: float,
        leased_until: float,
        version: int,
    ) -> Assignment:
        """A new task for a device.

        Args:
            device: its id.
            before: its latest task in the cohort, which is over; None: this is the first.
            assigned_at: now.
            ends_at: when its longest time is over.
            leased_until: see above.
            version: of the weights that it starts from.
        """
        first = cls(device, 1, assigned_at, ends_at, leased_until, version=version)
        if before is None:
            return first
        done = before.state is AssignmentState.DONE
        return replace(
            first,
            attempt=before.attempt + 1,
            failed_before=not done and (before.failed_before or before.failed),
            turn=before.turn + int(done),
        )

    @property
    def failed(self) -> bool:
        """It failed or was declined for good; a device that is merely busy counts for nothing."""
        ended_badly = (AssignmentState.DECLINED, AssignmentState.FAILED, AssignmentState.OUT_OF_TIME)
        return self.state in ended_badly and not self.temporary

    @property
    def leased_to_the_end(self) -> bool:
        """Its device was heard of so late that the lease lasts as long as the task may."""
        return self.leased_until >= self.ends_at


@dataclass(frozen=True)
class Standing:
    """Says how a cohort and the fold that it works for stand, without their tasks.

    Of a fold that is merged while its cohort works for the next one, no task is open, and `done` are its outcomes.

    Attributes:
        state: of the fold.
        opened_at: when the cohort began to wait for devices; None: not known.
        started_at: when the first task was handed out; None before.
        open: tasks that are handed out and not over.
        done: outcomes that will be folded.
        failed_devices: devices with a failed task and without an outcome, however often each of them has tried.
        failed_attempts: tasks that failed.
        enrolled: devices of the population; 0: not known.
        why: what ended it, when that was not simply enough outcomes.
        version: the newest of the weights, from which a task starts that is handed out now.
        accepted: how many updates of the run were accepted, whatever became of them: the place of the latest in the
            order in which they were.
        admission: whom the cohort admits when; None: whoever asks first.
    """

    state: FoldState = FoldState.SELECTING
    opened_at: float | None = None
    started_at: float | None = None
    open: int = 0
    done: int = 0
    failed_devices: int = 0
    failed_attempts: int = 0
    enrolled: int = 0
    why: str = ""
    version: int = 0
    accepted: int = 0
    admission: Admission | None = None

    def counting(self, before: Assignment | None, after: Assignment) -> Standing:
        """The counters after a task was handed out (`before` is None) or changed its state."""
        was_open = before is not None and before.state is AssignmentState.OPEN
        is_open, done = after.state is AssignmentState.OPEN, after.state is AssignmentState.DONE
        failed = was_open and after.failed
        devices = int(failed and not after.failed_before) - int(was_open and done and after.failed_before)
        return replace(
            self,
            open=self.open + int(is_open) - int(was_open),
            done=self.done + int(was_open and done),
            failed_devices=self.failed_devices + devices,
            failed_attempts=self.failed_attempts + int(failed),
            accepted=self.accepted + int(was_open and done),
        )

    def stopped(self, why: str) -> Change | None:
        """Ends the fold and the cohort, as most schedules do when their run ends; None when the fold is over."""
        if self.state in (FoldState.DONE, FoldState.FAILED):
            return None
        return Change(replace(self, state=FoldState.FAILED, open=0, why=why), released=True)


@dataclass(frozen=True)
class Concerned:
    """The tasks of a cohort that a question may concern; all others are only counted.

    Attributes:
        mine: the latest task of the device that asks.
        overdue: open tasks that were leased to the end, which is over now.
        late: of the other open tasks whose lease is over now, the one for which that is longest ago, and of several the
            one whose device's id is smallest.
        key: of the device that asks, where the cohort has an admission and the device no task in it.
        counted: an update of the device that asks is in the fold already.
        root: the latest task of the root device, whose tasks are none of the others and not counted; None: it has none.
    """

    mine: Assignment | None = None
    overdue: tuple[Assignment, ...] = ()
    late: Assignment | None = None
    key: float = 0.0
    counted: bool = False
    root: Assignment | None = None


@dataclass(frozen=True)
class Change:
    """The changes that a decision makes.

    Attributes:
        standing: afterwards.
        assigned: a task that is handed out.
        changed: tasks that were known, as they are afterwards.
        released: all other open tasks of the cohort are abandoned.
        following: how the next fold stands that the cohort works for from now on, while this one is merged; None: the
            cohort ends with its fold.
        left_out: the update that was settled is accepted, and not folded, as it is too many versions behind.
    """

    standing: Standing
    assigned: Assignment | None = None
    changed: tuple[Assignment, ...] = ()
    released: bool = False
    following: Standing | None = None
    left_out: bool = False


class Schedule(Protocol):
    """The questions that the server asks a schedule. One is made for a run from its settings.

    It may have an attribute ``unused``: names of settings that have no meaning with it, and are refused; and one
    ``devices_needed``: without so many devices no fold of it ends, where that are others than the target. With a true
    ``asks_root_device`` it asks the root device of a run that has one beside each cohort.
    """

    @property
    def by_acceptance(self) -> bool:
        """Whether a fold takes its outcomes in the order in which they were accepted; else in that of their task ids.

        The latter makes the weights independent of who was fast, which has a meaning only where arrival does not decide
        what belongs to a fold.
        """
        ...

    def assign(self, standing: Standing, concerned: Concerned, device: str, now: float) -> Change | None:
        """Hands the device a task, the change's `assigned`; None when there is no work for it."""
        ...

    def places(self, standing: Standing, overdue: int, late: int) -> int:
        """The number of tasks that could be handed out.

        Args:
            standing: of the cohort.
            overdue: how many open tasks were leased to the end, which is over now.
            late: of how many others the lease is over now.
        """
        ...

    def renew(self, standing: Standing, mine: Assignment | None, now: float) -> Change | None:
        """Extends the lease of the device's latest task, the only one in `changed`; None when it is not wanted."""
        ...

    def settle(
        self, standing: Standing, concerned: Concerned, state: AssignmentState, now: float, *, temporary: bool = False
    ) -> Change:
        """Records how the device's open task ended.

        Args:
            standing: of the cohort.
            concerned: with the task as `mine`.
            state: DONE, DECLINED or FAILED.
            now: the time.
            temporary: for DECLINED: the device may be ready later.

        Raises:
            RunError: the fold takes no outcomes, or the device has no open task.
        """
        ...

    def advance(self, standing: Standing, concerned: Concerned, now: float) -> Change | None:
        """Ends what is overdue, and the cohort when it is time; None when nothing is to be changed."""
        ...

    def stop(self, standing: Standing, why: str) -> Change | None:
        """Ends a fold that is not over when its run ends: its outcomes will not be merged; None when it is over.

        It is asked of each fold of the run that is not over; the last is the one that the cohort works for.
        """
        ...

    def lose(self, standing: Standing, outcomes: int, why: str) -> Change:
        """Says what becomes of a fold that is to be merged when outcomes that were accepted for it are damaged.

        Args:
            standing: of the fold, with the lost ones among `done`.
            outcomes: how many of them are lost.
            why: for operators.

        Returns:
            The fold with the rest, or FAILED; with `why`.
        """
        ...

    def folded(self, standing: Standing) -> Standing:
        """The new weights are kept: the fold is done.

        Raises:
            RunError: it was not folding.
        """
        ...

    def seconds_left(self, standing: Standing, task: Assignment, now: float) -> float:
        """The seconds that an open task may still take."""
        ...

    def rest_seconds(self, times: int) -> float:
        """The seconds for which a device gets no task of the run after one was out of time for the n-th time."""
        ...
