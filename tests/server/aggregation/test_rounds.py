from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from edgefl.errors import RunError
from edgefl_server.aggregation import AssignmentState, Round, RoundState, RunSettings


def a_round(**settings: float) -> Round:
    return Round(RunSettings(**{"rounds": 1, "target": 2, **settings}))  # type: ignore[arg-type]


def assigned(current: Round, device: str, now: float = 0.0) -> Round:
    after = current.assign(device, now)
    assert after is not None
    return after


def test_a_round_collects_once_its_cohort_is_full_and_folds_at_its_target() -> None:
    current = assigned(a_round(), "a")
    assert current.state is RoundState.SELECTING
    current = assigned(current, "b")
    assert current.state is RoundState.COLLECTING
    assert current.assign("c", 0) is None
    current = current.settle("b", AssignmentState.DONE, 1).settle("a", AssignmentState.DONE, 2)
    assert current.state is RoundState.FOLDING
    assert current.folded().state is RoundState.DONE


def test_over_selection_asks_more_devices_and_releases_the_slow_ones() -> None:
    current = a_round(target=10, over_selection=1.3)
    for index in range(13):
        current = assigned(current, f"d{index:02d}")
    assert current.assign("one more", 0) is None
    for index in range(10):
        current = current.settle(f"d{index:02d}", AssignmentState.DONE, 1)
    assert current.state is RoundState.FOLDING
    assert current.count(AssignmentState.ABANDONED) == 3
    with pytest.raises(RunError):
        current.settle("d12", AssignmentState.DONE, 2)


def test_over_selection_is_one_without_a_deadline_and_1_3_with_one() -> None:
    assert RunSettings(rounds=1, target=10).cohort_size == 10
    assert RunSettings(rounds=1, target=10, deadline_seconds=60).cohort_size == 13
    assert RunSettings(rounds=1, target=10, deadline_seconds=60, over_selection=2).cohort_size == 20


def test_the_deadline_counts_from_the_first_task() -> None:
    current = a_round(deadline_seconds=60, minimum=1)
    assert current.advance(1e9).state is RoundState.SELECTING
    current = assigned(current, "a", now=100)
    assert current.advance(159).state is RoundState.SELECTING
    assert current.advance(160).state is RoundState.FAILED
    enough = current.settle("a", AssignmentState.DONE, 120)
    assert enough.advance(160).state is RoundState.FOLDING
    assert "deadline" in enough.advance(160).why


def test_a_declined_task_makes_room_for_another_device() -> None:
    current = assigned(assigned(a_round(), "a"), "b")
    current = current.settle("a", AssignmentState.DECLINED, 1, temporary=True)
    assert current.state is RoundState.SELECTING
    assert assigned(current, "c", 1).state is RoundState.COLLECTING


def test_a_device_that_gave_up_is_asked_again_after_a_growing_pause() -> None:
    current = assigned(a_round(target=9), "a").settle("a", AssignmentState.FAILED, 100)
    assert current.assign("a", 109) is None
    again = assigned(current, "a", 110).settle("a", AssignmentState.FAILED, 200)
    assert again.assign("a", 219) is None
    latest = assigned(again, "a", 220).latest("a")
    assert latest is not None
    assert latest.attempt == 3


def test_a_round_whose_devices_all_fail_ends_and_says_so() -> None:
    current = assigned(assigned(a_round(), "a"), "b")
    current = current.settle("a", AssignmentState.FAILED, 1).settle("b", AssignmentState.DECLINED, 2)
    assert current.state is RoundState.FAILED
    assert "2 devices failed" in current.why
    assert "0 of at least 2" in current.why


def test_enough_failures_fold_what_came_when_it_reaches_the_minimum() -> None:
    current = a_round(target=3, minimum=2, max_failures=1)
    for device in "abc":
        current = assigned(current, device)
    current = current.settle("a", AssignmentState.DONE, 1).settle("b", AssignmentState.DONE, 1)
    assert current.settle("c", AssignmentState.FAILED, 2).state is RoundState.FOLDING


def test_a_busy_device_counts_for_no_failure() -> None:
    current = a_round(target=1, max_failures=1)
    for attempt in range(5):
        now = 1000.0 * attempt
        current = assigned(current, "a", now).settle("a", AssignmentState.DECLINED, now, temporary=True)
    assert current.state is RoundState.SELECTING
    assert current.failures == 0


def test_a_place_is_taken_over_only_after_its_lease_and_only_when_needed() -> None:
    current = assigned(a_round(target=1, lease_seconds=30), "a", 0)
    assert current.assign("b", 30) is None
    taken = assigned(current, "b", 31)
    assert taken.renew("a", 31) is None
    late = current.settle("a", AssignmentState.DONE, 1000)
    assert late.state is RoundState.FOLDING


def test_a_renewed_lease_keeps_the_place() -> None:
    current = assigned(a_round(target=1, lease_seconds=30), "a", 0).renew("a", 29)
    assert current is not None
    assert current.assign("b", 31) is None


def test_a_stopped_round_is_failed_and_stays_so() -> None:
    current = assigned(a_round(), "a").stop("enough of it")
    assert current.state is RoundState.FAILED
    assert current.why == "enough of it"
    assert current.stop("again") is current
    assert current.advance(1e9) is current
    assert current.assign("b", 0) is None


def test_only_a_folding_round_becomes_done() -> None:
    with pytest.raises(RunError, match="selecting"):
        a_round().folded()


class RoundMachine(RuleBasedStateMachine):
    """Devices come, work, fail and go silent in any order."""

    devices = tuple("abcdef")

    @initialize(
        wanted=st.integers(1, 4),
        minimum=st.integers(0, 4),
        over=st.sampled_from([0.0, 1.0, 1.5]),
        deadline=st.sampled_from([0.0, 50.0]),
        failures=st.integers(0, 4),
    )
    def begin(self, wanted: int, minimum: int, over: float, deadline: float, failures: int) -> None:
        self.now = 0.0
        self.settings = RunSettings(
            rounds=1,
            target=wanted,
            minimum=min(minimum, wanted),
            over_selection=over,
            deadline_seconds=deadline,
            max_failures=failures,
            lease_seconds=10,
        )
        self.round = Round(self.settings)
        self.accepted: set[str] = set()
        self.ended: RoundState | None = None

    @rule(seconds=st.floats(0, 30))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds
        self.round = self.round.advance(self.now)

    @rule(device=st.sampled_from(devices))
    def poll(self, device: str) -> None:
        renewed = self.round.renew(device, self.now)
        after = renewed or self.round.assign(device, self.now)
        if after is not None:
            assert self.round.state.takes_outcomes
            assert device not in self.accepted
            latest = after.latest(device)
            assert latest is not None
            assert latest.state is AssignmentState.OPEN
            self.round = after

    @rule(
        device=st.sampled_from(devices),
        how=st.sampled_from([AssignmentState.DONE, AssignmentState.DECLINED, AssignmentState.FAILED]),
        temporary=st.booleans(),
    )
    def settle(self, device: str, how: AssignmentState, temporary: bool) -> None:
        latest = self.round.latest(device)
        wanted = self.round.state.takes_outcomes and latest is not None and latest.state is AssignmentState.OPEN
        if not wanted:
            with pytest.raises(RunError):
                self.round.settle(device, how, self.now, temporary=temporary)
            return
        self.round = self.round.settle(device, how, self.now, temporary=temporary)
        if how is AssignmentState.DONE:
            self.accepted.add(device)

    @precondition(lambda self: self.round.state is RoundState.FOLDING)
    @rule()
    def fold(self) -> None:
        self.round = self.round.folded()

    @rule()
    def restart(self) -> None:
        self.round = Round(
            self.round.settings, self.round.state, self.round.assignments, self.round.started_at, self.round.why
        )

    @invariant()
    def what_was_accepted_stays_accepted(self) -> None:
        done = {a.device for a in self.round.assignments if a.state is AssignmentState.DONE}
        assert done == self.accepted
        assert self.round.outcomes == len(self.accepted) <= self.settings.target

    @invariant()
    def never_more_devices_work_than_the_cohort(self) -> None:
        assert self.round.count(AssignmentState.OPEN) + self.round.outcomes <= self.settings.cohort_size

    @invariant()
    def a_closed_round_waits_for_nobody_and_stays_closed(self) -> None:
        if self.round.state.takes_outcomes:
            assert self.ended is None
            assert self.round.outcomes < self.settings.target
            assert self.round.failures < self.settings.effective_max_failures
            return
        assert self.round.count(AssignmentState.OPEN) == 0
        if self.round.state is RoundState.FAILED:
            assert self.round.outcomes < self.settings.effective_minimum
            assert self.round.why
            assert self.ended in (None, RoundState.FAILED)
        else:
            assert self.round.outcomes >= self.settings.effective_minimum
            assert self.ended is not RoundState.FAILED
        self.ended = self.round.state

    @invariant()
    def a_device_has_one_open_task_at_most(self) -> None:
        open_ones = [a.device for a in self.round.assignments if a.state is AssignmentState.OPEN]
        assert len(open_ones) == len(set(open_ones))
        pairs = [(a.device, a.attempt) for a in self.round.assignments]
        assert len(pairs) == len(set(pairs))


TestRoundMachine = RoundMachine.TestCase


@given(
    steps=st.lists(
        st.tuples(st.integers(0, 4), st.sampled_from(["assign", "renew", "done", "busy", "failed"]), st.floats(0, 90)),
        max_size=25,
    ),
    target=st.integers(1, 3),
)
def test_there_is_a_place_wherever_a_device_could_get_a_task(steps: list[tuple[int, str, float]], target: int) -> None:
    states = {"done": AssignmentState.DONE, "busy": AssignmentState.DECLINED, "failed": AssignmentState.FAILED}
    current, now = Round(RunSettings(rounds=1, target=target, lease_seconds=50, over_selection=1.5)), 0.0
    for index, action, seconds in steps:
        now += seconds
        device = f"device {index}"
        if any(current.assign(f"device {each}", now) for each in range(6)):
            assert current.places(now) > 0
        if current.latest("nobody") is None and current.assign("nobody", now) is None:
            assert current.places(now) == 0
        if action in states:
            with contextlib.suppress(RunError):
                current = current.settle(device, states[action], now, temporary=action == "busy")
        else:
            current = (current.assign if action == "assign" else current.renew)(device, now) or current
