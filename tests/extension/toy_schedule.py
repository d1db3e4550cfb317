"""A buffer: every so many outcomes are folded at once, whichever version they began from, and nobody is waited for."""

from __future__ import annotations

from dataclasses import dataclass, replace

from edgefl_server.aggregation import (
    Assignment,
    AssignmentState,
    Change,
    Concerned,
    FoldState,
    RunSettings,
    Standing,
)


@dataclass(frozen=True)
class Buffered:
    settings: RunSettings

    def assign(self, standing: Standing, concerned: Concerned, device: str, now: float) -> Change | None:
        mine = concerned.mine
        if not self.places(standing, 0, 0) or (mine is not None and mine.state is AssignmentState.OPEN):
            return None
        ends = now + self.settings.effective_task_seconds
        new = Assignment(device, mine.attempt + 1 if mine else 1, now, ends, now + self.settings.lease_seconds)
        return Change(standing.counting(None, new), new)

    def places(self, standing: Standing, overdue: int, late: int) -> int:
        return max(0, self.settings.cohort_size - standing.open) if standing.state.takes_outcomes else 0

    def renew(self, standing: Standing, mine: Assignment | None, now: float) -> Change | None:
        if mine is None or mine.state is not AssignmentState.OPEN or now >= mine.ends_at:
            return None
        return Change(standing, changed=(replace(mine, leased_until=now + self.settings.lease_seconds),))

    def settle(
        self, standing: Standing, concerned: Concerned, state: AssignmentState, now: float, *, temporary: bool = False
    ) -> Change:
        assert concerned.mine is not None
        ended = replace(concerned.mine, state=state, ended_at=now, temporary=temporary)
        after = standing.counting(concerned.mine, ended)
        if after.done < self.settings.target:
            return Change(after, changed=(ended,))
        return Change(replace(after, state=FoldState.FOLDING), changed=(ended,), following=replace(after, done=0))

    def advance(self, standing: Standing, concerned: Concerned, now: float) -> Change | None:
        return None

    def stop(self, standing: Standing, why: str) -> Change | None:
        return Change(replace(standing, state=FoldState.FAILED, open=0, why=why), released=True)

    def folded(self, standing: Standing) -> Standing:
        return replace(standing, state=FoldState.DONE)

    def seconds_left(self, standing: Standing, task: Assignment, now: float) -> float:
        return task.ends_at - now

    def rest_seconds(self, times: int) -> float:
        return 0.0
