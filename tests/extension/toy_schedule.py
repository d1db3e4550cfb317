"""A buffer, as in FedBuff (Nguyen et al. 2022): so many outcomes at a time are merged, whatever each began from.

One cohort stays open over all versions, and nobody is waited for. With it comes a strategy that knows of the staleness.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import ClassVar

from edgefl.errors import RunError
from edgefl_server.aggregation import (
    Assignment,
    AssignmentState,
    Change,
    Cohort,
    Concerned,
    FoldState,
    RunSettings,
    Standing,
    Strategy,
    StrategyState,
    Update,
    Updates,
)
from edgefl_server.aggregation.averaging import average, by_examples

OPEN = AssignmentState.OPEN


@dataclass(frozen=True)
class Buffered:
    """``target`` outcomes are merged at a time, while as many devices work as a cohort has."""

    settings: RunSettings
    by_acceptance: ClassVar[bool] = True

    def assign(self, standing: Standing, concerned: Concerned, device: str, now: float) -> Change | None:
        mine = concerned.mine
        if not standing.state.takes_outcomes or (mine is not None and not self._may_go_on(mine, now)):
            return None
        standing, changed = ended(standing, concerned.overdue, AssignmentState.OUT_OF_TIME, now)
        if standing.open >= self.settings.cohort_size:
            late = () if concerned.late is None else (concerned.late,)
            standing, abandoned = ended(standing, late, AssignmentState.ABANDONED, now)
            if not abandoned:
                return None
            changed += abandoned
        new = self._leased(
            Assignment.of(
                device,
                mine,
                assigned_at=now,
                ends_at=now + self.settings.effective_task_seconds,
                leased_until=now,
                version=standing.version,
            ),
            now,
        )
        return Change(standing.counting(None, new), new, changed)

    def places(self, standing: Standing, overdue: int, late: int) -> int:
        if not standing.state.takes_outcomes:
            return 0
        return max(0, self.settings.cohort_size - (standing.open - overdue)) + late

    def renew(self, standing: Standing, mine: Assignment | None, now: float) -> Change | None:
        if mine is None or mine.state is not OPEN or now >= mine.ends_at or not standing.state.takes_outcomes:
            return None
        return Change(standing, changed=(self._leased(mine, now),))

    def settle(
        self, standing: Standing, concerned: Concerned, state: AssignmentState, now: float, *, temporary: bool = False
    ) -> Change:
        mine = concerned.mine
        if mine is None or mine.state is not OPEN or not standing.state.takes_outcomes:
            raise RunError("The device has no open task.")
        settled = replace(mine, state=state, ended_at=now, temporary=temporary)
        change = self._counted(standing.counting(mine, settled))
        return replace(change, changed=(settled,))

    def advance(self, standing: Standing, concerned: Concerned, now: float) -> Change | None:
        if not concerned.overdue or not standing.state.takes_outcomes:
            return None
        standing, changed = ended(standing, concerned.overdue, AssignmentState.OUT_OF_TIME, now)
        return replace(self._counted(standing), changed=changed)

    def stop(self, standing: Standing, why: str) -> Change | None:
        return standing.stopped(why)

    def lose(self, standing: Standing, outcomes: int, why: str) -> Change:
        rest = replace(standing, done=standing.done - outcomes, why=why)
        return (None if rest.done else rest.stopped(why)) or Change(rest)

    def folded(self, standing: Standing) -> Standing:
        if standing.state is not FoldState.FOLDING:
            raise RunError(f"A fold that is {standing.state.value} cannot become done.")
        return replace(standing, state=FoldState.DONE)

    def seconds_left(self, standing: Standing, task: Assignment, now: float) -> float:
        return task.ends_at - now

    def rest_seconds(self, times: int) -> float:
        return self.settings.effective_task_seconds * times

    def _may_go_on(self, mine: Assignment, now: float) -> bool:
        if mine.state is OPEN:
            return mine.ends_at <= now and mine.leased_to_the_end
        return not mine.failed or now >= mine.ended_at + self.settings.lease_seconds

    def _leased(self, task: Assignment, now: float) -> Assignment:
        return replace(task, leased_until=min(now + self.settings.lease_seconds, task.ends_at))

    def _counted(self, standing: Standing) -> Change:
        """A full buffer is merged while the same cohort fills the next one."""
        if standing.failed_devices >= self.settings.effective_max_failures:
            failed = standing.stopped(f"{standing.failed_devices} devices failed")
            assert failed is not None
            return failed
        if standing.done < self.settings.target:
            return Change(standing)
        return Change(replace(standing, state=FoldState.FOLDING), following=replace(standing, done=0))


def ended(
    standing: Standing, tasks: tuple[Assignment, ...], state: AssignmentState, now: float
) -> tuple[Standing, tuple[Assignment, ...]]:
    after = tuple(replace(each, state=state, ended_at=now) for each in tasks)
    for before, each in zip(tasks, after, strict=True):
        standing = standing.counting(before, each)
    return standing, after


def discounted(update: Update) -> float:
    """As FedBuff does by default: an update counts for less, the more versions it is behind."""
    return by_examples(update) / math.sqrt(1 + update.staleness)


@dataclass(frozen=True)
class Discounted(Strategy):
    """``w ← w + Σ sₖ Δₖ / Σ sₖ`` with sₖ = nₖ / √(1 + staleness)."""

    summary: ClassVar[str] = "fleets in which some devices are slow"

    def apply(self, state: StrategyState, updates: Updates, cohort: Cohort) -> tuple[StrategyState, dict[str, float]]:
        averages = average(updates, {"delta": discounted, "statistics": by_examples})
        after, figures = state.moved(averages["delta"].mean(), averages["statistics"].mean())
        return after, {**figures, "stalest": float(max(update.staleness for update in updates))}
