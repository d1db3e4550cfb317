from __future__ import annotations

import contextlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

import whole_rounds
from cohorts import Cohort
from edgefl.errors import RunError
from edgefl.wire.messages import OutcomeStatus, Reason
from edgefl_server.aggregation import RunSettings, ending
from edgefl_server.aggregation.schedules import AssignmentState, FoldState, Standing, Synchronous


def a_round(enrolled: int = 0, **settings: float) -> Cohort:
    return Cohort(RunSettings(**{"rounds": 1, "target": 2, **settings}), Standing(enrolled=enrolled))  # type: ignore[arg-type]


def assigned(current: Cohort, device: str, now: float = 0.0) -> Cohort:
    after = current.assign(device, now)
    assert after is not None
    return after


def test_a_round_collects_once_its_cohort_is_full_and_folds_at_its_target() -> None:
    current = assigned(a_round(), "a")
    assert current.state is FoldState.SELECTING
    current = assigned(current, "b")
    assert current.state is FoldState.COLLECTING
    assert current.assign("c", 0) is None
    current = current.settle("b", AssignmentState.DONE, 1).settle("a", AssignmentState.DONE, 2)
    assert current.state is FoldState.FOLDING
    assert current.folded().state is FoldState.DONE


def test_over_selection_asks_more_devices_and_releases_the_slow_ones() -> None:
    current = a_round(target=10, over_selection=1.3)
    for index in range(13):
        current = assigned(current, f"d{index:02d}")
    assert current.assign("one more", 0) is None
    for index in range(10):
        current = current.settle(f"d{index:02d}", AssignmentState.DONE, 1)
    assert current.state is FoldState.FOLDING
    assert current.count(AssignmentState.ABANDONED) == 3
    with pytest.raises(RunError):
        current.settle("d12", AssignmentState.DONE, 2)


def test_over_selection_is_one_without_a_deadline_and_1_3_with_one() -> None:
    assert RunSettings(rounds=1, target=10).cohort_size == 10
    assert RunSettings(rounds=1, target=10, deadline_seconds=60).cohort_size == 13
    assert RunSettings(rounds=1, target=10, deadline_seconds=60, over_selection=2).cohort_size == 20


def test_the_deadline_counts_from_the_first_task() -> None:
    current = a_round(deadline_seconds=60, minimum=1)
    assert current.advance(1e9).state is FoldState.SELECTING
    current = assigned(current, "a", now=100)
    assert current.advance(159).state is FoldState.SELECTING
    assert current.advance(160).state is FoldState.FAILED
    enough = current.settle("a", AssignmentState.DONE, 120)
    assert enough.advance(160).state is FoldState.FOLDING
    assert "deadline" in enough.advance(160).why


def test_a_declined_task_makes_room_for_another_device() -> None:
    current = assigned(assigned(a_round(), "a"), "b")
    current = current.settle("a", AssignmentState.DECLINED, 1, temporary=True)
    assert current.state is FoldState.SELECTING
    assert assigned(current, "c", 1).state is FoldState.COLLECTING


def test_a_device_that_gave_up_is_asked_again_after_a_growing_pause() -> None:
    current = assigned(a_round(target=9), "a").settle("a", AssignmentState.FAILED, 100)
    assert current.assign("a", 109) is None
    again = assigned(current, "a", 110).settle("a", AssignmentState.FAILED, 200)
    assert again.assign("a", 219) is None
    latest = assigned(again, "a", 220).latest("a")
    assert latest is not None
    assert latest.attempt == 3


def failing(current: Cohort, device: str, times: int, now: float = 0.0) -> tuple[Cohort, float]:
    """The device takes a task and fails it, again and again."""
    for _ in range(times):
        now += 60
        current = assigned(current, device, now).settle(device, AssignmentState.FAILED, now)
    return current, now


def test_a_round_with_as_many_failed_devices_as_it_asks_ends_and_says_so() -> None:
    current = a_round(target=3)
    for device in "abc":
        assert current.state is FoldState.SELECTING
        current, _ = failing(current, device, 1)
    assert current.state is FoldState.FAILED
    assert "3 devices failed" in current.why
    assert "0 of at least 3" in current.why


@pytest.mark.parametrize("target", [1, 2, 4])
def test_one_device_ends_no_round_of_others_however_often_it_fails(target: int) -> None:
    current, now = failing(a_round(target=target, enrolled=5), "bad", 40)
    assert current.state is FoldState.SELECTING
    assert current.failures == 1
    for device in "abcd"[:target]:
        current = assigned(current, device, now).settle(device, AssignmentState.DONE, now)
    assert current.state is FoldState.FOLDING


def test_the_devices_of_a_small_fleet_end_a_round_when_all_of_them_fail_again_and_again() -> None:
    alone, _ = failing(a_round(target=1, enrolled=1), "a", 2)
    assert alone.state is FoldState.SELECTING
    alone, _ = failing(alone, "a", 1, 200)
    assert alone.state is FoldState.FAILED
    assert "1 device failed" in alone.why

    two, now = failing(a_round(target=1, enrolled=2), "a", 5)
    assert two.state is FoldState.SELECTING
    assert failing(two, "b", 1, now)[0].state is FoldState.FAILED


def test_a_device_that_succeeds_in_the_end_is_no_failure() -> None:
    current, now = failing(a_round(target=2, enrolled=2), "a", 4)
    current = assigned(current, "a", now + 60).settle("a", AssignmentState.DONE, now + 60)
    assert current.failures == 0
    current, _ = failing(current, "b", 9, now)
    assert current.state is FoldState.SELECTING


def test_an_explicit_number_of_failures_counts_devices_too() -> None:
    current, now = failing(a_round(target=1, max_failures=2, enrolled=5), "a", 9)
    assert current.state is FoldState.SELECTING
    assert failing(current, "b", 1, now)[0].state is FoldState.FAILED


def test_enough_failures_fold_what_came_when_it_reaches_the_minimum() -> None:
    current = a_round(target=3, minimum=2, max_failures=1)
    for device in "abc":
        current = assigned(current, device)
    current = current.settle("a", AssignmentState.DONE, 1).settle("b", AssignmentState.DONE, 1)
    assert current.settle("c", AssignmentState.FAILED, 2).state is FoldState.FOLDING


def test_a_busy_device_counts_for_no_failure() -> None:
    current = a_round(target=1, max_failures=1)
    for attempt in range(5):
        now = 1000.0 * attempt
        current = assigned(current, "a", now).settle("a", AssignmentState.DECLINED, now, temporary=True)
    assert current.state is FoldState.SELECTING
    assert current.failures == 0


def test_a_place_is_taken_over_only_after_its_lease_and_only_when_needed() -> None:
    current = assigned(a_round(target=1, lease_seconds=30), "a", 0)
    assert current.assign("b", 30) is None
    taken = assigned(current, "b", 31)
    assert taken.renew("a", 31) is None
    late = current.settle("a", AssignmentState.DONE, 1000)
    assert late.state is FoldState.FOLDING


def test_a_renewed_lease_keeps_the_place() -> None:
    current = assigned(a_round(target=1, lease_seconds=30), "a", 0).renew("a", 29)
    assert current is not None
    assert current.assign("b", 31) is None


def test_a_device_that_renews_for_ever_keeps_its_place_for_a_tasks_longest_time_only() -> None:
    current, now = assigned(a_round(target=1, lease_seconds=30, task_seconds=100), "hog", 0), 0.0
    while (renewed := current.renew("hog", now)) is not None:
        assert current.advance(now) == current
        assert current.assign("b", now) is None
        current, now = renewed, now + 10
    assert now == 100
    current = current.advance(now)
    latest = current.latest("hog")
    assert latest is not None
    assert (latest.state, latest.ended_at, current.failures) == (AssignmentState.OUT_OF_TIME, 100, 1)
    assert current.assign("hog", 109) is None
    assert assigned(current, "b", 101).renew("b", 120) is not None


def test_a_device_rests_for_as_long_as_it_held_a_place_for_nothing_and_twice_as_long_each_time() -> None:
    schedule = Synchronous(RunSettings(rounds=1, target=1, task_seconds=100))
    assert [schedule.rest_seconds(times) for times in (1, 2, 3)] == [100, 200, 400]
    assert schedule.rest_seconds(10**6) < float("inf")


def test_a_device_that_was_switched_off_keeps_its_task_beyond_the_longest_time_while_nobody_wants_the_place() -> None:
    current = assigned(a_round(target=1, lease_seconds=30, task_seconds=100), "off", 0)
    assert current.advance(1e6) == current
    assert current.settle("off", AssignmentState.DONE, 1e6).state is FoldState.FOLDING
    assert assigned(current, "b", 1e6).latest("off").state is AssignmentState.ABANDONED  # type: ignore[union-attr]


def test_a_device_that_comes_back_after_the_longest_time_begins_anew_once_others_could_have_taken_over() -> None:
    current = assigned(a_round(target=1, lease_seconds=30, task_seconds=100), "a", 0).renew("a", 60)
    assert current is not None
    assert current.renew("a", 101) is None
    assert current.assign("a", 101) is None
    again = assigned(current, "a", 120)
    assert [each.state for each in again.assignments] == [AssignmentState.ABANDONED, AssignmentState.OPEN]
    assert again.renew("a", 219) is not None


def test_a_task_ends_with_its_longest_time_or_its_rounds_deadline_whichever_comes_first() -> None:
    current = assigned(a_round(deadline_seconds=100, task_seconds=60), "a", 0)
    current = assigned(current, "b", 70)
    a, b = current.assignments
    assert current.schedule.seconds_left(current.standing, a, 10) == 50
    assert current.schedule.seconds_left(current.standing, b, 70) == 30


def test_a_stopped_round_is_failed_and_stays_so() -> None:
    current = assigned(a_round(), "a").stop("enough of it")
    assert current.state is FoldState.FAILED
    assert current.why == "enough of it"
    assert current.stop("again") is current
    assert current.advance(1e9) is current
    assert current.assign("b", 0) is None


@pytest.mark.parametrize(("minimum", "state"), [(0, FoldState.FAILED), (1, FoldState.FOLDING)])
def test_a_round_whose_outcomes_are_damaged_goes_on_with_at_least_the_minimum(minimum: int, state: FoldState) -> None:
    current = assigned(assigned(a_round(minimum=minimum), "a"), "b")
    current = current.settle("a", AssignmentState.DONE, 1).settle("b", AssignmentState.DONE, 1)
    after = current.schedule.lose(current.standing, 1, "1 is damaged").standing
    assert (after.state, after.done) == (state, 1)
    needed = ", with 1 of at least 2 outcomes" if state is FoldState.FAILED else ""
    assert after.why == f"1 is damaged{needed}"


@pytest.mark.parametrize("reason", list(Reason))
def test_only_a_device_that_is_busy_or_not_ready_may_be_ready_later(reason: Reason) -> None:
    busy = reason in (Reason.BUSY, Reason.NOT_READY)
    assert ending(OutcomeStatus.DECLINED, reason) == (AssignmentState.DECLINED, busy)
    assert ending(OutcomeStatus.FAILED, reason) == (AssignmentState.FAILED, False)
    assert ending(OutcomeStatus.DONE, reason) == (AssignmentState.DONE, False)


def test_outcomes_are_counted_as_they_are_accepted() -> None:
    current = assigned(assigned(a_round(), "a"), "b").settle("b", AssignmentState.FAILED, 1)
    assert current.standing.accepted == 0
    assert current.settle("a", AssignmentState.DONE, 2).standing.accepted == 1


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
            task_seconds=25,
        )
        self.round = Cohort(self.settings, Standing(enrolled=len(self.devices)))
        self.accepted: set[str] = set()
        self.ended: FoldState | None = None

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

    @precondition(lambda self: self.round.state is FoldState.FOLDING)
    @rule()
    def fold(self) -> None:
        self.round = self.round.folded()

    @invariant()
    def the_counters_are_what_a_count_of_the_tasks_gives(self) -> None:
        tasks, standing = self.round.assignments, self.round.standing
        failed, done = (
            {a.device for a in tasks if a.failed},
            {a.device for a in tasks if a.state is AssignmentState.DONE},
        )
        assert standing.open == self.round.count(AssignmentState.OPEN)
        assert standing.done == self.round.count(AssignmentState.DONE)
        assert standing.failed_devices == len(failed - done)
        assert standing.failed_attempts == sum(a.failed for a in tasks)

    @invariant()
    def what_was_accepted_stays_accepted(self) -> None:
        done = {a.device for a in self.round.assignments if a.state is AssignmentState.DONE}
        assert done == self.accepted
        assert self.round.standing.done == len(self.accepted) <= self.settings.target

    @invariant()
    def never_more_devices_work_than_the_cohort(self) -> None:
        assert self.round.count(AssignmentState.OPEN) + self.round.standing.done <= self.settings.cohort_size

    @invariant()
    def a_closed_round_waits_for_nobody_and_stays_closed(self) -> None:
        if self.round.state.takes_outcomes:
            assert self.ended is None
            assert self.round.standing.done < self.settings.target
            assert self.round.failures < self.settings.effective_max_failures
            return
        assert self.round.count(AssignmentState.OPEN) == 0
        if self.round.state is FoldState.FAILED:
            assert self.round.standing.done < self.settings.effective_minimum
            assert self.round.why
            assert self.ended in (None, FoldState.FAILED)
        else:
            assert self.round.standing.done >= self.settings.effective_minimum
            assert self.ended is not FoldState.FAILED
        self.ended = self.round.state

    @invariant()
    def no_lease_is_longer_than_the_longest_time(self) -> None:
        for each in self.round.assignments:
            assert each.assigned_at <= each.leased_until <= each.assigned_at + 25

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
    current, now = Cohort(RunSettings(rounds=1, target=target, lease_seconds=50, over_selection=1.5)), 0.0
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


DEVICES = tuple("abcdef")
ACTIONS = (
    "poll",
    "poll",
    "assign",
    "renew",
    "done",
    "failed",
    "declined",
    "busy",
    "advance",
    "advance",
    "stop",
    "folded",
)
"""Most are polls, so that rounds fill."""


def same(cohort: Cohort, whole: whole_rounds.Round) -> None:
    """Both say the same about everything that both know."""
    # A task that is out of time was a failed one, which only its times and a missing outcome told apart.
    names = {each.value: each.value for each in AssignmentState} | {"out_of_time": "failed"}
    of = ("device", "attempt", "assigned_at", "leased_until", "ended_at", "temporary")
    mine = [(names[each.state.value], *(getattr(each, name) for name in of)) for each in cohort.assignments]
    theirs = [(each.state.value, *(getattr(each, name) for name in of)) for each in whole.assignments]
    assert mine == theirs
    assert (cohort.state.value, cohort.why) == (whole.state.value, whole.why)
    assert cohort.standing.started_at == whole.started_at
    assert cohort.standing.done == whole.outcomes
    assert cohort.failures == whole.failures
    assert cohort.standing.failed_attempts == sum(each.failed for each in whole.assignments)
    assert cohort.standing.open == whole.count(whole_rounds.AssignmentState.OPEN)


@st.composite
def histories(draw: st.DrawFn) -> tuple[RunSettings, int, float | None, list[tuple[str, str, float]]]:
    target, deadline = draw(st.integers(1, 4)), draw(st.sampled_from([0.0, 0.0, 70.0]))
    settings = RunSettings(
        rounds=1,
        target=target,
        minimum=draw(st.integers(0, target)),
        over_selection=draw(st.sampled_from([0.0, 1.0, 1.5])),
        deadline_seconds=deadline,
        max_failures=draw(st.integers(0, 4)),
        lease_seconds=draw(st.sampled_from([10.0, 30.0, 1.1])),
        # Shorter than a lease, as long as some, and the default of twelve.
        task_seconds=draw(st.sampled_from([5.0, 25.0, 30.0, 0.0] if not deadline else [5.0, 25.0, 0.0])),
    )
    # Times that hit the ends of leases and tasks exactly, and others.
    seconds = st.one_of(st.sampled_from([0.0, 0.0, 1.0, 5.0, 10.0, 25.0, 30.0]), st.floats(0, 40))
    step = st.tuples(st.sampled_from(ACTIONS), st.sampled_from(DEVICES), seconds)
    opened_at = draw(st.sampled_from([None, 0.0]))
    return settings, draw(st.sampled_from([0, 1, 2, 6])), opened_at, draw(st.lists(step, max_size=60))


@settings(max_examples=400)
@given(histories())
def test_whatever_happens_it_decides_as_if_it_had_looked_at_all_the_tasks(
    history: tuple[RunSettings, int, float | None, list[tuple[str, str, float]]],
) -> None:
    wanted, enrolled, opened_at, steps = history
    cohort = Cohort(wanted, Standing(enrolled=enrolled, opened_at=opened_at))
    whole = whole_rounds.Round(wanted, enrolled=enrolled, opened_at=opened_at)
    now = 0.1
    for action, device, seconds in steps:
        now += seconds
        assert cohort.places(now) == whole.places(now)
        if action in ("poll", "assign", "renew"):
            found, expected = None, None
            if action in ("poll", "renew"):
                found, expected = cohort.renew(device, now), whole.renew(device, now)
                assert (found is None) == (expected is None)
            if action != "renew" and found is None:
                found, expected = cohort.assign(device, now), whole.assign(device, now)
                assert (found is None) == (expected is None)
            if found is None or expected is None:
                continue
            cohort, whole = found, expected
            task, same_task = cohort.latest(device), whole.latest(device)
            assert task is not None
            assert same_task is not None
            left = cohort.schedule.seconds_left(cohort.standing, task, now)
            assert left == whole.seconds_left(same_task, now)
        elif action == "advance":
            cohort, whole = cohort.advance(now), whole.advance(now)
        elif action == "stop":
            if device == "a":  # now and then
                cohort, whole = cohort.stop("enough"), whole.stop("enough")
        elif action == "folded":
            if cohort.state is FoldState.FOLDING:
                cohort, whole = cohort.folded(), whole.folded()
        else:
            name = "declined" if action == "busy" else action
            try:
                whole = whole.settle(device, whole_rounds.AssignmentState(name), now, temporary=action == "busy")
            except RunError:
                with pytest.raises(RunError):
                    cohort.settle(device, AssignmentState(name), now, temporary=action == "busy")
            else:
                cohort = cohort.settle(device, AssignmentState(name), now, temporary=action == "busy")
        same(cohort, whole)


ROOT = {"strategy": "fedavg", "hyperparameters": {"rule": "fltrust", "root_device": "root"}}


def test_a_root_device_is_beside_the_round_and_its_update_comes_last_or_first() -> None:
    current = assigned(a_round(**ROOT), "root")
    assert (current.standing.open, current.standing.started_at, current.places(0)) == (0, None, 2)
    current = assigned(assigned(current, "a"), "b")
    assert (current.state, current.places(0)) == (FoldState.COLLECTING, 0)
    first = current.settle("root", AssignmentState.DONE, 1)
    assert (first.standing.done, first.standing.accepted, first.state) == (0, 1, FoldState.COLLECTING)
    for last, before in (("a", ("root", "b")), ("root", ("a", "b"))):
        waiting = current
        for device in before:
            waiting = waiting.settle(device, AssignmentState.DONE, 1)
        assert waiting.advance(1e9).state is FoldState.COLLECTING
        over = waiting.settle(last, AssignmentState.DONE, 2)
        assert (over.state, over.standing.done, over.standing.accepted) == (FoldState.FOLDING, 2, 3)


def test_a_root_device_that_is_silent_or_late_keeps_its_task_until_it_asks_again() -> None:
    current = assigned(assigned(assigned(a_round(lease_seconds=10, task_seconds=40, **ROOT), "root"), "a"), "b")
    assert assigned(current, "c", 11).latest("root").state is AssignmentState.OPEN  # another one's place
    assert current.assign("root", 39) is None
    again = assigned(current, "root", 60)
    assert (again.latest("root").attempt, again.standing.open) == (2, 2)
    late = current.settle("root", AssignmentState.DONE, 59)
    assert late.standing.failed_devices == 0


def test_a_round_whose_devices_have_failed_waits_for_its_root_device_only_while_it_has_the_minimum() -> None:
    current = assigned(a_round(target=3, minimum=1, max_failures=1, enrolled=9, **ROOT), "root")
    for device in "abc":
        current = assigned(current, device)
    assert current.settle("a", AssignmentState.FAILED, 1).state is FoldState.FAILED
    waiting = current.settle("b", AssignmentState.DONE, 1).settle("a", AssignmentState.FAILED, 2)
    assert waiting.state.takes_outcomes
    assert waiting.settle("root", AssignmentState.DONE, 3).state is FoldState.FOLDING
    alone = a_round(target=3, max_failures=2, enrolled=2, **ROOT)  # the root device, and another one
    for now in (0, 100):
        alone = assigned(alone, "a", now).settle("a", AssignmentState.FAILED, now)
    assert alone.state is FoldState.FAILED
