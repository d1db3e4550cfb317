"""The buffer: who works when, what is merged together, what is too old, and what it refuses."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgefl.errors import InvalidSettingError, RunError
from edgefl_server.aggregation import RunSettings, schedule_for
from edgefl_server.aggregation.schedules import (
    AssignmentState,
    Buffered,
    Change,
    Concerned,
    FoldState,
    Standing,
)

DONE, FAILED = AssignmentState.DONE, AssignmentState.FAILED


class Run:
    """A run under a buffer: keeps what the schedule says, as a server does."""

    def __init__(self, **chosen):
        self.schedule = Buffered(RunSettings.of(**{"rounds": 9, "target": 2, "schedule": "buffered", **chosen}))
        self.standing = Standing(enrolled=10)
        self.tasks, self.folds = {}, []
        self.gathered, self.full = [], []

    def assign(self, device, now=0.0, late=None):
        concerned = Concerned(self.tasks.get(device), late=late, counted=device in self.gathered)
        change = self.schedule.assign(self.standing, concerned, device, now)
        return None if change is None else self.apply(change)

    def settle(self, device, state=DONE, now=1.0, **more):
        return self.apply(self.schedule.settle(self.standing, Concerned(self.tasks[device]), state, now, **more))

    def apply(self, change: Change):
        for each in (*change.changed, *([change.assigned] if change.assigned else [])):
            self.tasks[each.device] = each
            if each.state is DONE and not change.left_out:
                self.gathered.append(each.device)
        if change.following is not None or change.standing.state is FoldState.FAILED:
            self.folds.append(change.standing)
            self.full.append(self.gathered)
            self.gathered = []
        self.standing = change.following or change.standing
        return change


def test_as_many_devices_work_as_the_concurrency_says_and_four_times_the_target_unless_it_is_given():
    run = Run(concurrency=3)
    assert [run.assign(device) is not None for device in "abcd"] == [True, True, True, False]
    assert run.standing.state is FoldState.COLLECTING
    run.settle("a")
    assert run.schedule.places(run.standing, 0, 0) == 1
    assert run.assign("d") is not None
    assert Run(target=5).schedule.settings.cohort_size == 20


def test_a_full_buffer_is_merged_while_the_same_cohort_fills_the_next_one():
    run = Run()
    for device in "abc":
        run.assign(device)
    assert run.settle("b").following is None
    change = run.settle("a")
    assert (change.standing.state, change.standing.done, change.released) == (FoldState.FOLDING, 2, False)
    assert (run.standing.state, run.standing.done, run.standing.open) == (FoldState.SELECTING, 0, 1)
    run.settle("c")
    assert (run.standing.done, run.standing.accepted) == (1, 3)
    assert run.schedule.folded(change.standing).state is FoldState.DONE
    with pytest.raises(RunError):
        run.schedule.folded(run.standing)


def test_a_device_that_is_done_begins_again_at_once_from_the_newest_version_and_with_another_turn():
    run = Run()
    run.assign("a")
    run.settle("a")
    run.standing = replace(run.standing, version=4)
    again = run.assign("a").assigned
    assert (again.version, again.attempt, again.turn) == (4, 2, 1)
    assert run.assign("a") is None


ONCE = (
    {"strategy": "fedbuff", "rule": "median"},
    {"strategy": "fedbuff", "pre_aggregation": "norm-bound"},
    {"strategy": "robust", "target": 8},
)


@pytest.mark.parametrize("chosen", ONCE)
def test_where_updates_are_counted_a_device_begins_again_only_once_the_fold_with_its_update_is_full(chosen):
    run = Run(**chosen)
    others = "bcdefghi"[: run.schedule.settings.target - 1]
    run.assign("a")
    run.settle("a")
    assert run.assign("a") is None
    for device in others:
        run.assign(device)
        assert run.assign("a") is None
        run.settle(device)
    assert (len(run.full), run.standing.done) == (1, 0)
    assert run.assign("a").assigned.turn == 1


def test_an_update_that_is_left_out_does_not_keep_its_device_from_the_fold():
    run = Run(max_staleness=1, rule="median")
    run.assign("a")
    run.standing = replace(run.standing, version=2)
    assert run.settle("a").left_out
    assert run.assign("a") is not None


@pytest.mark.parametrize(("behind", "left_out"), [(2, False), (3, True)])
def test_what_is_too_many_versions_behind_is_accepted_and_left_out(behind, left_out):
    run = Run(max_staleness=2)
    run.assign("a")
    run.standing = replace(run.standing, version=behind)
    change = run.settle("a")
    assert change.left_out is left_out
    assert (run.standing.done, run.standing.accepted, run.standing.open) == (int(not left_out), 1, 0)
    assert run.tasks["a"].state is DONE


def test_a_device_that_failed_is_not_out_of_time_for_ever_and_failures_count_anew_after_each_fold():
    run = Run(max_failures=2)
    for device in "abc":
        run.assign(device)
    run.settle("a", FAILED)
    run.settle("b"), run.settle("c")
    assert (run.standing.failed_devices, run.standing.failed_attempts) == (0, 0)
    assert run.assign("a", 5.0) is None
    assert run.assign("a", 11.0) is not None
    run.settle("a", now=12.0)  # it is among those that failed before the fold
    assert run.standing.failed_devices == 0
    run.assign("d"), run.assign("e")
    run.settle("d", FAILED)
    change = run.settle("e", FAILED)
    assert (change.standing.state, change.released) == (FoldState.FAILED, True)
    assert change.standing.why == "2 devices failed or declined for good, with 1 of 2 outcomes"


def test_the_place_of_a_silent_device_goes_to_another_one():
    run = Run(concurrency=1, lease_seconds=10)
    silent = run.assign("a").assigned
    assert run.assign("b", 11.0) is None
    change = run.assign("b", 11.0, late=silent)
    assert change.changed[0].state is AssignmentState.ABANDONED
    assert run.standing.open == 1
    assert run.schedule.renew(run.standing, run.tasks["a"], 12.0) is None
    renewed = run.schedule.renew(run.standing, run.tasks["b"], 12.0)
    assert renewed.changed[0].leased_until == 22.0


def test_a_task_that_takes_too_long_ends_and_counts_as_failed():
    run = Run(task_seconds=50, lease_seconds=60)
    task = run.assign("a").assigned
    assert run.schedule.seconds_left(run.standing, task, 20.0) == 30.0
    change = run.schedule.advance(run.standing, Concerned(overdue=(task,)), 50.0)
    assert change.changed[0].state is AssignmentState.OUT_OF_TIME
    assert (change.standing.open, change.standing.failed_devices) == (0, 1)
    assert run.schedule.advance(run.standing, Concerned(), 50.0) is None
    assert run.schedule.rest_seconds(3) == 200.0


def test_damaged_outcomes_leave_a_smaller_fold_and_all_of_them_none():
    run = Run()
    full = Standing(state=FoldState.FOLDING, done=2)
    assert run.schedule.lose(full, 1, "1 is damaged").standing == replace(full, done=1, why="1 is damaged")
    assert run.schedule.lose(full, 2, "2 are damaged").standing.state is FoldState.FAILED


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from("abcdef"), st.sampled_from(["ask", "done", "fail", "busy", "late", "merge"])),
        max_size=60,
    ),
    st.integers(1, 4),
    st.integers(1, 5),
    st.sampled_from([0, 1]),
    st.sampled_from(["mean", "median"]),
)
def test_whatever_devices_do_counters_are_true_and_nothing_is_merged_twice(steps, target, concurrency, most, rule):
    run = Run(target=target, concurrency=concurrency, max_staleness=most, max_failures=9, lease_seconds=10, rule=rule)
    now, accepted, merged = 0.0, 0, 0
    for device, what in steps:
        now += 7.0
        mine = run.tasks.get(device)
        is_open = mine is not None and mine.state is AssignmentState.OPEN
        if what == "ask":
            late = min(
                (each for each in run.tasks.values() if each.state is AssignmentState.OPEN and each.leased_until < now),
                key=lambda each: (each.leased_until, each.device),
                default=None,
            )
            change = run.assign(device, now, late)
            assert change is None or not is_open or change.changed
        elif what == "merge" and run.folds:
            run.schedule.folded(run.folds.pop(0))
            merged += 1
            run.standing = replace(run.standing, version=run.standing.version + 1)
        elif is_open and what in ("done", "fail", "busy"):
            state = {"done": DONE, "fail": FAILED, "busy": AssignmentState.DECLINED}[what]
            run.settle(device, state, now, temporary=what == "busy")
            accepted += what == "done"
        open_ones = [each for each in run.tasks.values() if each.state is AssignmentState.OPEN]
        assert run.standing.open == len(open_ones) <= concurrency
        assert (run.standing.accepted, run.standing.done < target) == (accepted, True)
        assert 0 <= run.standing.failed_devices <= 6
        assert target * (len(run.folds) + merged) + run.standing.done <= accepted
        assert (run.standing.state is FoldState.COLLECTING) == (run.standing.open >= concurrency)
        assert run.standing.done == len(run.gathered)
        assert rule == "mean" or all(len(set(each)) == len(each) for each in (*run.full, run.gathered))


@pytest.mark.parametrize(
    ("given_settings", "message"),
    [
        ({"strategy": "scaffold"}, "schedule buffered does not go with strategy scaffold: its corrections"),
        ({"strategy": "feddyn", "mu": 0.1}, "schedule buffered does not go with strategy feddyn"),
        ({"deadline_seconds": 60}, "deadline_seconds has no meaning with schedule buffered"),
        ({"minimum": 1}, "minimum has no meaning with schedule buffered"),
        ({"over_selection": 2}, "over_selection has no meaning with schedule buffered"),
        ({"schedule": "synchronous", "concurrency": 4}, "concurrency has no meaning with schedule synchronous"),
        ({"schedule": "synchronous", "staleness": "hinge"}, "staleness has no meaning with schedule synchronous"),
        ({"staleness": "linear"}, "staleness expects one of constant, polynomial, threshold, hinge, got 'linear'"),
        ({"staleness": "hinge", "staleness_exponent": 1.0}, "staleness_exponent has no meaning with staleness hinge"),
        ({"kind": "evaluate"}, "schedule has no meaning with kind evaluate"),
        ({"kind": "statistics", "target": 5}, "schedule has no meaning with kind statistics"),
        ({"staleness_floor": 0.5}, "staleness_floor has no meaning with staleness polynomial"),
    ],
)
def test_what_has_no_meaning_with_a_schedule_is_refused_with_the_reason(given_settings, message):
    with pytest.raises(InvalidSettingError, match=message):
        schedule_for(RunSettings.of(**{"rounds": 1, "target": 2, "schedule": "buffered", **given_settings}))
