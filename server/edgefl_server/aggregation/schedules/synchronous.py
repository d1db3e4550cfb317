"""Synchronous rounds: SELECTING → COLLECTING → FOLDING → DONE | FAILED. A version has one cohort, and that one fold.

The design (over-selection, a minimum, a deadline) follows Bonawitz et al. 2019, Towards Federated Learning at Scale.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

from edgefl.errors import RunError
from edgefl_server.aggregation.hyperparameters import settings_of
from edgefl_server.aggregation.root_device import root_device_of
from edgefl_server.aggregation.schedules.base import (
    Assignment,
    AssignmentState,
    Change,
    Concerned,
    FoldState,
    Standing,
)
from edgefl_server.aggregation.schedules.leases import (
    abandoned,
    handed_out,
    is_hopeless,
    may_try_again,
    renewed,
    rest_seconds,
    without_overdue,
)
from edgefl_server.aggregation.settings import RunSettings
from edgefl_server.aggregation.staleness import Buffering

__all__ = ["Synchronous"]

_ROOT_ATTEMPTS = 3
"""A round without the root device is none: when it fails so often, it is not asked again."""


@dataclass(frozen=True)
class Synchronous:
    """Rounds that wait for as many outcomes as are wanted, and begin anew from the weights that these make.

    Where the run has a root device, it is asked in every round, has no place in it, and is waited for.

    Args:
        settings: the run's.

    Attributes:
        by_acceptance: see `Schedule`.
        asks_root_device: see `Schedule`.
        unused: settings of a run that have no meaning with it.
    """

    settings: RunSettings
    by_acceptance: ClassVar[bool] = False
    asks_root_device: ClassVar[bool] = True
    unused: ClassVar[tuple[str, ...]] = tuple(each.name for each in settings_of(Buffering))

    @property
    def devices_needed(self) -> int:
        """See `Schedule`."""
        return self.settings.target + bool(self._root)

    def assign(self, standing: Standing, concerned: Concerned, device: str, now: float) -> Change | None:
        """Hands the device a task; None when there is no work for it.

        A free place comes first; else the place of the device whose lease ran out longest ago. A device that was silent
        until its task's longest time was over begins anew, once others had a whole lease to take its place. One that
        the cohort's selection does not admit yet gets none.
        """
        if not standing.state.takes_outcomes:
            return None
        if device == self._root:
            return self._assign_root(standing, concerned.mine, now)
        standing, changed = without_overdue(standing, concerned.overdue, now)
        mine = concerned.mine
        if mine is not None:
            before = changed.get((mine.device, mine.attempt), mine)
            if not self._may_try_again(before, now):
                return None
            if before.state is AssignmentState.OPEN:
                standing, changed = abandoned(standing, changed, before, now)
            mine = before
        elif standing.admission and not standing.admission.admits(concerned.key, standing.opened_at, now):
            return None
        if self._is_full(standing):
            if concerned.late is None:
                return None
            standing, changed = abandoned(standing, changed, concerned.late, now)
        standing, new = handed_out(self.settings, standing, device, mine, now)
        return Change(self._selected(standing), new, tuple(changed.values()))

    def places(self, standing: Standing, overdue: int, late: int) -> int:
        """Free places, and those of tasks that are out of time or whose lease has run out."""
        if not standing.state.takes_outcomes:
            return 0
        return max(0, self.settings.cohort_size - (standing.open - overdue + standing.done)) + late

    def renew(self, standing: Standing, mine: Assignment | None, now: float) -> Change | None:
        """See `leases.renewed`."""
        return renewed(self.settings, standing, mine, now)

    def settle(
        self, standing: Standing, concerned: Concerned, state: AssignmentState, now: float, *, temporary: bool = False
    ) -> Change:
        """Records how the device's open task ended, and ends the round when that makes it time.

        Raises:
            RunError: the round no longer takes outcomes, or the device has no open task in it.
        """
        mine = concerned.mine
        if not standing.state.takes_outcomes or mine is None or mine.state is not AssignmentState.OPEN:
            who = "The device" if mine is None else f"Device {mine.device}"
            raise RunError(f"{who} has no open task in a round that is {standing.state.value}.")
        if state not in (AssignmentState.DONE, AssignmentState.DECLINED, AssignmentState.FAILED):
            raise RunError(f"A task cannot be settled as {state.value}.")
        ended = replace(mine, state=state, ended_at=now, temporary=temporary and state is AssignmentState.DECLINED)
        root = concerned.root
        if mine.device == self._root:
            root = ended
            standing = replace(standing, accepted=standing.accepted + int(state is AssignmentState.DONE))
        else:
            standing = standing.counting(mine, ended)
        others = tuple(each for each in concerned.overdue if each != mine)
        change = self._advanced(standing, others, root, now)
        return replace(change, changed=(ended, *change.changed))

    def advance(self, standing: Standing, concerned: Concerned, now: float) -> Change | None:
        """Ends overdue tasks, and the round when it is time: enough outcomes, the deadline, or too many failures."""
        if not standing.state.takes_outcomes:
            return None
        change = self._advanced(standing, concerned.overdue, concerned.root, now)
        return None if change == Change(standing) else change

    def stop(self, standing: Standing, why: str) -> Change | None:
        """Ends a round that is not finished; its outcomes will not be folded."""
        return standing.stopped(why)

    def lose(self, standing: Standing, outcomes: int, why: str) -> Change:
        """Goes on with the rest of the outcomes when they are at least the minimum, else gives the round up."""
        rest = replace(standing, done=standing.done - outcomes)
        return self._closed(rest, "; ".join(filter(None, (standing.why, why))))

    def folded(self, standing: Standing) -> Standing:
        """The new weights are kept: the round is done.

        Raises:
            RunError: the round was not folding.
        """
        if standing.state is not FoldState.FOLDING:
            raise RunError(f"A round that is {standing.state.value} cannot become done.")
        return replace(standing, state=FoldState.DONE)

    def seconds_left(self, standing: Standing, task: Assignment, now: float) -> float:
        """The seconds until the task's longest time or its round's deadline is over, whichever comes first."""
        deadline = self._deadline(standing)
        return (task.ends_at if deadline is None else min(task.ends_at, deadline)) - now

    def rest_seconds(self, times: int) -> float:
        """See `leases.rest_seconds`."""
        return rest_seconds(self.settings, times)

    @property
    def _root(self) -> str:
        return root_device_of(self.settings)

    def _assign_root(self, standing: Standing, mine: Assignment | None, now: float) -> Change | None:
        """Hands the root device its task; the time of the round begins with the first other one."""
        if mine is not None and not self._may_try_again(mine, now):
            return None
        over = mine is not None and mine.state is AssignmentState.OPEN
        changed = (replace(mine, state=AssignmentState.ABANDONED, ended_at=now),) if mine is not None and over else ()
        _, new = handed_out(self.settings, standing, self._root, mine, now)
        return Change(standing, new, changed)

    def _advanced(
        self, standing: Standing, overdue: tuple[Assignment, ...], root: Assignment | None, now: float
    ) -> Change:
        waits = bool(self._root) and (root is None or root.state is not AssignmentState.DONE)
        if standing.done >= self.settings.target and not waits:
            return self._closed(standing, "")
        standing, ended = without_overdue(standing, overdue, now)
        changed = tuple(ended.values())
        if waits and root is not None and root.failed and root.attempt >= _ROOT_ATTEMPTS:
            return replace(self._without_root(standing, "it failed or declined for good"), changed=changed)
        fleet = replace(standing, enrolled=max(0, standing.enrolled - bool(self._root)))
        if is_hopeless(self.settings, fleet) and not (waits and standing.done >= self.settings.effective_minimum):
            devices = "1 device" if standing.failed_devices == 1 else f"{standing.failed_devices} devices"
            return replace(self._closed(standing, f"{devices} failed or declined for good"), changed=changed)
        deadline = self._deadline(standing)
        if deadline is not None and now >= deadline:
            why = f"the deadline of {self.settings.deadline_seconds:g} s passed"
            enough = standing.done >= self.settings.effective_minimum
            closed = self._without_root(standing, why) if waits and enough else self._closed(standing, why)
            return replace(closed, changed=changed)
        return Change(self._selected(standing), changed=changed)

    def _without_root(self, standing: Standing, why: str) -> Change:
        because = f"there is no update of the root device {self._root}: {why}"
        return _released(standing, FoldState.FAILED, because)

    def _deadline(self, standing: Standing) -> float | None:
        """The time at which the round closes whatever has come; None: never, or not known yet."""
        since = standing.opened_at if standing.started_at is None else standing.started_at
        if since is None or not self.settings.deadline_seconds:
            return None
        return since + self.settings.deadline_seconds

    def _may_try_again(self, before: Assignment, now: float) -> bool:
        return before.state is not AssignmentState.DONE and may_try_again(self.settings, before, now)

    def _closed(self, standing: Standing, why: str) -> Change:
        minimum = self.settings.effective_minimum
        if standing.done >= minimum:
            return _released(standing, FoldState.FOLDING, why)
        needed = f"{standing.done} of at least {minimum} outcomes"
        return _released(standing, FoldState.FAILED, f"{why}, with {needed}" if why else needed)

    def _is_full(self, standing: Standing) -> bool:
        return standing.open + standing.done >= self.settings.cohort_size

    def _selected(self, standing: Standing) -> Standing:
        state = FoldState.COLLECTING if self._is_full(standing) else FoldState.SELECTING
        return standing if state is standing.state else replace(standing, state=state)


def _released(standing: Standing, state: FoldState, why: str) -> Change:
    return Change(replace(standing, state=state, open=0, why=why), released=True)
