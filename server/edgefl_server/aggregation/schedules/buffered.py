"""A buffer of updates: so many at a time are merged, from whatever version of the weights each began; nobody waits.

FedBuff: Nguyen et al. 2022, "Federated Learning with Buffered Asynchronous Aggregation", Algorithm 1. With a buffer of
one it is the schedule of FedAsync: Xie et al. 2019, "Asynchronous Federated Optimization", Algorithm 1.

Under a strategy that judges updates by their number, a device counts at most once in a fold, so that a fold has no more
bad updates than there are bad devices, however fast these are. It is what the frequency filter of Kardam is for:
Damaskinos et al. 2018, "Asynchronous Byzantine Machine Learning (the case of SGD)", section 3.2.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

from edgefl.errors import RunError
from edgefl.wire.vocabulary import Correction
from edgefl_server.aggregation.hyperparameters import SettingError
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
from edgefl_server.aggregation.settings import RunSettings, strategy_for

__all__ = ["Buffered"]


@dataclass(frozen=True)
class Buffered:
    """One cohort goes on over all folds: as many devices as ``concurrency`` work, and ``target`` updates are a fold.

    Args:
        settings: the run's.

    Attributes:
        by_acceptance: see `Schedule`.
        unused: settings of a run that have no meaning with it.

    Raises:
        SettingError: the strategy presumes that all updates of a fold began from the same weights.
    """

    settings: RunSettings
    by_acceptance: ClassVar[bool] = True
    unused: ClassVar[tuple[str, ...]] = ("minimum", "over_selection", "deadline_seconds", "selection")

    def __post_init__(self) -> None:
        strategy = strategy_for(self.settings)
        if strategy.demand.correction is not Correction.NONE:
            raise SettingError(
                f"{{schedule}} buffered does not go with {{strategy}} {self.settings.strategy}: its corrections are "
                "differences between devices that began from the same weights, which those of a buffer did not.",
                hint="Use fedbuff, or {schedule} synchronous.",
            )

    def assign(self, standing: Standing, concerned: Concerned, device: str, now: float) -> Change | None:
        """Hands the device a task; None when as many devices work as may, or it has one.

        A device whose update was accepted may begin again at once, from the newest weights; or once the fold is full
        that has the update, where a device counts at most once in one. As it has one open task at most, none of which
        is handed out while it counts, the fold that is open when its next update comes has none of it.
        """
        if not standing.state.takes_outcomes or (concerned.counted and self._counts_once):
            return None
        standing, changed = without_overdue(standing, concerned.overdue, now)
        mine = concerned.mine
        if mine is not None:
            before = changed.get((mine.device, mine.attempt), mine)
            if before.state is not AssignmentState.DONE and not may_try_again(self.settings, before, now):
                return None
            if before.state is AssignmentState.OPEN:
                standing, changed = abandoned(standing, changed, before, now)
            mine = before
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
        return max(0, self.settings.cohort_size - (standing.open - overdue)) + late

    def renew(self, standing: Standing, mine: Assignment | None, now: float) -> Change | None:
        """See `leases.renewed`."""
        return renewed(self.settings, standing, mine, now)

    def settle(
        self, standing: Standing, concerned: Concerned, state: AssignmentState, now: float, *, temporary: bool = False
    ) -> Change:
        """Records how the device's open task ended, and hands the buffer over when that fills it.

        An update that is too many versions behind is accepted, and left out of the buffer.

        Raises:
            RunError: the run no longer takes outcomes, or the device has no open task in it.
        """
        mine = concerned.mine
        if not standing.state.takes_outcomes or mine is None or mine.state is not AssignmentState.OPEN:
            who = "The device" if mine is None else f"Device {mine.device}"
            raise RunError(f"{who} has no open task in a buffer that is {standing.state.value}.")
        if state not in (AssignmentState.DONE, AssignmentState.DECLINED, AssignmentState.FAILED):
            raise RunError(f"A task cannot be settled as {state.value}.")
        ended = replace(mine, state=state, ended_at=now, temporary=temporary and state is AssignmentState.DECLINED)
        standing = _counting(standing, mine, ended)
        left_out = state is AssignmentState.DONE and self._is_too_old(mine, standing)
        if left_out:
            standing = replace(standing, done=standing.done - 1)
        others = tuple(each for each in concerned.overdue if each != mine)
        change = self._advanced(standing, others, now)
        return replace(change, changed=(ended, *change.changed), left_out=left_out)

    def advance(self, standing: Standing, concerned: Concerned, now: float) -> Change | None:
        """Ends overdue tasks, and the fold when too many devices have failed since the one before."""
        if not standing.state.takes_outcomes:
            return None
        change = self._advanced(standing, concerned.overdue, now)
        return None if change == Change(standing) else change

    def stop(self, standing: Standing, why: str) -> Change | None:
        """Ends a fold that is not finished; its outcomes will not be folded."""
        return standing.stopped(why)

    def lose(self, standing: Standing, outcomes: int, why: str) -> Change:
        """Goes on with the rest of the outcomes when there is one, else gives the fold up."""
        rest = replace(standing, done=standing.done - outcomes, why="; ".join(filter(None, (standing.why, why))))
        return (None if rest.done else rest.stopped(rest.why)) or Change(rest)

    def folded(self, standing: Standing) -> Standing:
        """The new weights are kept: the fold is done.

        Raises:
            RunError: it was not folding.
        """
        if standing.state is not FoldState.FOLDING:
            raise RunError(f"A fold that is {standing.state.value} cannot become done.")
        return replace(standing, state=FoldState.DONE)

    def seconds_left(self, standing: Standing, task: Assignment, now: float) -> float:
        """The seconds until the task's longest time is over."""
        return task.ends_at - now

    def rest_seconds(self, times: int) -> float:
        """See `leases.rest_seconds`."""
        return rest_seconds(self.settings, times)

    @property
    def devices_needed(self) -> int:
        """One fills the buffer, again and again, unless a device counts once in a fold."""
        return self.settings.target if self._counts_once else 1

    @property
    def _counts_once(self) -> bool:
        # Not for all: FedBuff lets devices repeat, and a few of them have to fill a large buffer.
        return strategy_for(self.settings).counts_updates

    def _advanced(self, standing: Standing, overdue: tuple[Assignment, ...], now: float) -> Change:
        # Before what is overdue: those tasks are of the fold that is gathered from now on.
        if standing.done >= self.settings.target:
            full = replace(standing, state=FoldState.FOLDING)
            following = replace(standing, state=FoldState.SELECTING, done=0, failed_devices=0, failed_attempts=0)
            return Change(full, following=self._selected(following))
        standing, ended = without_overdue(standing, overdue, now)
        if is_hopeless(self.settings, standing):
            devices = "1 device" if standing.failed_devices == 1 else f"{standing.failed_devices} devices"
            needed = f"{standing.done} of {self.settings.target} outcomes"
            failed = standing.stopped(f"{devices} failed or declined for good, with {needed}")
            assert failed is not None
            return replace(failed, changed=tuple(ended.values()))
        return Change(self._selected(standing), changed=tuple(ended.values()))

    def _is_too_old(self, task: Assignment, standing: Standing) -> bool:
        most = self.settings.max_staleness
        return most > 0 and standing.version - task.version > most

    def _is_full(self, standing: Standing) -> bool:
        return standing.open >= self.settings.cohort_size

    def _selected(self, standing: Standing) -> Standing:
        state = FoldState.COLLECTING if self._is_full(standing) else FoldState.SELECTING
        return standing if state is standing.state else replace(standing, state=state)


def _counting(standing: Standing, before: Assignment, after: Assignment) -> Standing:
    """Counts an ended task; a device that failed before the latest fold is not among those that failed since."""
    counted = standing.counting(before, after)
    return replace(counted, failed_devices=max(0, counted.failed_devices))
