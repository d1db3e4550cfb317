"""A schedule whose cohort goes on while folds are merged: what storage keeps is what the schedule says."""

from __future__ import annotations

import pytest
from sqlalchemy import select

from edgefl.errors import RunError
from edgefl.wire.messages import Reason
from edgefl_server.aggregation import fold
from edgefl_server.aggregation.schedules import SCHEDULES
from edgefl_server.storage import (
    fold_round,
    next_task,
    pending_folds,
    prune_rows,
    run_log,
    run_status,
    stop_run,
    sweep_outcomes,
)
from edgefl_server.storage import merging as merging_module
from edgefl_server.storage.tables import AssignmentRow, CohortRow, FoldRow, OutcomeRow, RunRow, VersionRow
from extension.toy_schedule import Buffered


@pytest.fixture
def buffered(fleet, monkeypatch):
    """Creates buffered runs; with a strategy that edgefl's own buffer refuses, under one from outside."""
    monkeypatch.setitem(SCHEDULES._entries, "toy-buffered", Buffered)

    def create(**settings: object) -> str:
        named = {"target": 3, **settings}
        twice = 2 * named["target"]
        if named.get("strategy") == "scaffold":
            return fleet.create_run(**{"schedule": "toy-buffered", "over_selection": 2, **named})
        if named.get("schedule") == "synchronous":
            return fleet.create_run(**{"over_selection": 2, **named})
        return fleet.create_run(**{"schedule": "buffered", "concurrency": twice, **named})

    return create


def rows(fleet, of, run):
    with fleet.state.database.read() as session:
        return session.scalars(select(of).where(of.run == run)).all()


@pytest.mark.parametrize("schedule", ["buffered", "synchronous"])
def test_outcomes_are_numbered_as_they_are_accepted_and_merged_in_the_order_of_the_schedule(
    fleet, buffered, monkeypatch, schedule: str
) -> None:
    merged = []

    def noting(strategy, before, contributions, *rest):
        merged.append([each.task_id for each in contributions])
        return fold(strategy, before, contributions, *rest)

    monkeypatch.setattr(merging_module, "fold", noting)
    devices = fleet.add_devices(6)
    run = buffered(schedule=schedule, target=5)
    tasks = [fleet.task(device) for device in devices]
    fleet.give_up(devices[5], Reason.BUSY)
    order = (4, 2, 0, 3, 1)
    for index in order:
        fleet.accept(devices[index], fleet.outcome(tasks[index]))
    fleet.fold()
    accepted = {each.task_id: each.accepted for each in rows(fleet, OutcomeRow, run)}
    assert [accepted[tasks[index].task_id] for index in order] == [1, 2, 3, 4, 5]
    assert accepted[tasks[5].task_id] == 0  # it holds no update
    assert rows(fleet, RunRow, run)[0].accepted == 5
    arrived = [tasks[index].task_id for index in order]
    assert merged == [arrived if schedule == "buffered" else sorted(arrived)]
    fleet.finish(devices[3])
    assert rows(fleet, RunRow, run)[0].accepted == 6


def test_of_two_folds_that_are_to_be_merged_the_earlier_comes_first(fleet, buffered) -> None:
    devices = fleet.add_devices(6)
    run = buffered()
    for device in devices:
        fleet.finish(device)
    assert [each.state for each in rows(fleet, FoldRow, run)] == ["folding", "folding", "selecting"]
    assert pending_folds(fleet.state) == [(run, 1)]
    assert fold_round(fleet.state, run, 1)
    assert pending_folds(fleet.state) == [(run, 2)]
    assert fold_round(fleet.state, run, 2)
    assert [each.version for each in rows(fleet, FoldRow, run)][:2] == [0, 1]
    assert [each.fold for each in rows(fleet, VersionRow, run)] == [0, 1, 2]


def test_a_stop_ends_the_fold_that_is_merged_and_the_one_that_is_gathered(fleet, buffered) -> None:
    devices = fleet.add_devices(6)
    run = buffered()
    for device in devices[:4]:
        fleet.finish(device)
    fleet.task(devices[4])
    assert stop_run(fleet.state, run, "enough of it")
    assert [(each.state, each.why) for each in rows(fleet, FoldRow, run)] == [("failed", "enough of it")] * 2
    assert {each.disposition for each in rows(fleet, OutcomeRow, run)} == {"discarded"}
    (cohort,) = rows(fleet, CohortRow, run)
    assert cohort.open == 0
    assert [each.state for each in rows(fleet, AssignmentRow, run)].count("abandoned") == 1
    assert stop_run(fleet.state, run) is False


def test_the_last_fold_ends_what_is_gathered_for_one_more(fleet, buffered) -> None:
    devices = fleet.add_devices(5)
    run = buffered(rounds=1)
    for device in devices[:4]:
        fleet.finish(device)
    fleet.task(devices[4])
    fleet.fold()
    status = run_status(fleet.state, run)
    assert status["state"] == "done"
    assert [entry["state"] for entry in status["history"]] == ["done", "failed"]
    assert status["history"][1]["outcomes"]["discarded"] == 1
    assert status["tasks_open"] == 0


@pytest.mark.parametrize(("lost", "state"), [(1, "done"), (3, "failed")])
def test_the_schedule_says_what_becomes_of_a_fold_with_damaged_outcomes_and_its_cohort_goes_on(
    fleet, buffered, lost: int, state: str
) -> None:
    devices = fleet.add_devices(6)
    run = buffered()
    for device in devices[:3]:
        fleet.finish(device)
    fleet.finish(devices[3])
    fleet.task(devices[4])
    (before,) = rows(fleet, CohortRow, run)
    for each in rows(fleet, OutcomeRow, run)[:lost]:
        path = fleet.state.outcomes.path(each.digest)
        path.write_bytes(path.read_bytes()[:-1])
    fleet.fold()
    first, second = run_status(fleet.state, run)["history"]
    assert (first["state"], first["outcomes"]["damaged"], first["outcomes"]["folded"]) == (state, lost, 3 - lost)
    assert f"{lost} accepted outcomes are damaged" in first["why"]
    assert (second["state"], second["outcomes"]["accepted"]) == ("selecting", 1)
    (after,) = rows(fleet, CohortRow, run)
    assert (after.open, after.done) == (before.open, before.done) == (1, 1)


def test_what_is_accepted_while_a_fold_fails_is_counted(fleet, buffered, monkeypatch) -> None:
    devices = fleet.add_devices(5)
    run = buffered()
    for device in devices[:3]:
        fleet.finish(device)
    for digest in list(fleet.state.outcomes):
        fleet.state.outcomes.path(digest).write_bytes(b"")

    def meanwhile(*arguments):
        fleet.finish(devices[3])
        return fold(*arguments)

    monkeypatch.setattr(merging_module, "fold", meanwhile)
    fleet.fold()
    fleet.finish(devices[4])
    assert [each.state for each in rows(fleet, FoldRow, run)] == ["failed", "selecting"]
    accepted = sorted(each.accepted for each in rows(fleet, OutcomeRow, run))
    assert accepted == [1, 2, 3, 4, 5]
    (cohort,) = rows(fleet, CohortRow, run)
    assert (cohort.done, cohort.open) == (2, 0)


def test_no_two_accepted_outcomes_of_a_device_have_one_seed_and_what_repeats_one_has_its_seed(fleet, buffered) -> None:
    (device,) = fleet.add_devices(1)
    buffered(target=5, rounds=9)
    seeds = [fleet.finish(device).seed for _ in range(3)]
    given_up = fleet.give_up(device, Reason.BUSY)
    fleet.clock.now += 10  # as long as after a first one that was not done
    seeds.append(fleet.finish(device).seed)
    assert given_up.seed == seeds[-1]
    assert len(set(seeds)) == 4


def test_a_task_goes_on_from_the_latest_accepted_one_and_names_those_that_may_be_asked_for(fleet, buffered) -> None:
    device, other = fleet.add_devices(2)
    buffered(target=2, rounds=9, strategy="scaffold")
    first, second = fleet.finish(device), fleet.finish(device)
    third = fleet.task(device)
    assert (first.continues, first.outstanding) == ("", ())
    assert (second.continues, second.outstanding) == (first.task_id, ())
    assert (third.continues, third.outstanding) == (second.task_id, (first.task_id,))
    fleet.fold()
    # It is the same task when it is asked for again, but what is part of the weights is not gone back from.
    again = fleet.task(device)
    assert (again.task_id, again.continues, again.outstanding) == (third.task_id, second.task_id, ())
    fleet.accept(device, fleet.outcome(third))
    assert (fleet.task(device).continues, fleet.task(device).outstanding) == (third.task_id, (second.task_id,))
    assert fleet.task(other).continues == ""


@pytest.mark.parametrize(("strategy", "left_out"), [("scaffold", 2), ("fedavg", 0)])
def test_what_went_on_from_a_damaged_outcome_does_not_count_where_devices_remember(
    fleet, buffered, strategy: str, left_out: int
) -> None:
    devices = fleet.add_devices(3)
    run = buffered(target=2, rounds=9, strategy=strategy)
    damaged = fleet.finish(devices[0])
    fleet.finish(devices[1])
    later = [fleet.finish(devices[0]), fleet.finish(devices[2])]
    open_one = fleet.task(devices[0])
    (digest,) = [each.digest for each in rows(fleet, OutcomeRow, run) if each.task_id == damaged.task_id]
    fleet.state.outcomes.path(digest).write_bytes(b"")
    fleet.fold()
    fleet.fold()
    fleet.accept(devices[0], fleet.outcome(open_one))
    fleet.finish(devices[2])
    fleet.fold()
    history = run_status(fleet.state, run)["history"]
    assert [entry["state"] for entry in history[:3]] == ["done"] * 3
    assert history[0]["outcomes"]["damaged"] == 1
    assert sum(entry["outcomes"]["discarded"] for entry in history) == left_out
    gone = {each.task_id for each in rows(fleet, OutcomeRow, run) if each.disposition == "discarded"}
    assert gone == ({later[0].task_id, open_one.task_id} if left_out else set())
    assert all(("go on from others" in entry["why"]) is bool(left_out) for entry in history[1:3])
    # The next one begins where what counts ends.
    assert fleet.task(devices[0]).continues == ("" if left_out else open_one.task_id)


def test_pruning_repeats_no_task_of_a_cohort_that_goes_on_and_no_seed(fleet, buffered) -> None:
    devices = fleet.add_devices(2)
    buffered(target=1, rounds=9)
    done = [fleet.finish(devices[0]) for _ in range(2)]
    done += [fleet.give_up(devices[0], Reason.BUSY), fleet.finish(devices[1])]
    for _ in range(3):
        fleet.fold()
    fleet.clock.now += 8 * 86_400
    assert prune_rows(fleet.state) == 1
    after = fleet.task(devices[0])
    assert after.task_id not in {each.task_id for each in done}
    assert after.seed not in {each.seed for each in done[:2]}


@pytest.mark.parametrize("rule", ["median", "mean"])
def test_a_device_counts_once_in_a_fold_where_updates_are_counted_also_after_a_restart(make_fleet, rule: str) -> None:
    fleet = make_fleet()
    devices = fleet.add_devices(4)
    run = fleet.create_run(schedule="buffered", target=3, concurrency=4, rounds=2, rule=rule)
    fast, slow = devices[0], fleet.task(devices[1])  # the slow one began before the fast one had done anything
    once = 0
    for _ in range(2):
        fleet.finish(fast)
        fleet.state.close()
        fleet = make_fleet(clock=fleet.clock)
        if rule == "median":
            assert next_task(fleet.state, fast) is None
            once += 1
            fleet.accept(devices[1], fleet.outcome(slow))
            assert next_task(fleet.state, fast) is None
            fleet.finish(devices[2])
            slow = fleet.task(devices[1])
        else:
            fleet.finish(fast), fleet.finish(fast)
        fleet.fold()
    told = run_log(fleet.state, run)["folds"]
    by = [[update["device"] for update in each["updates"]] for each in told]
    names = [each.device for each in devices]
    assert by == ([names[:3]] * 2 if rule == "median" else [names[:1] * 3] * 2)
    assert once == (2 if rule == "median" else 0)


def test_what_is_too_old_is_answered_with_202_and_said_to_be_left_out(fleet) -> None:
    devices = fleet.add_devices(3)
    run = fleet.create_run(schedule="buffered", target=1, concurrency=3, rounds=9, max_staleness=1)
    slow = fleet.task(devices[0])
    for _ in range(2):
        fleet.finish(devices[1])
        fleet.fold()
    fleet.accept(devices[0], fleet.outcome(slow))
    history = run_status(fleet.state, run)["history"]
    assert [entry["outcomes"]["stale"] for entry in history] == [0, 0, 1]
    assert pending_folds(fleet.state) == []
    fleet.accept(devices[0], fleet.outcome(slow))  # the answer is lost: it is the same again
    fleet.finish(devices[2])
    fleet.fold()
    third = run_status(fleet.state, run)["history"][2]
    assert (third["state"], third["outcomes"]["folded"], third["outcomes"]["stale"]) == ("done", 1, 1)
    log = run_log(fleet.state, run)
    assert [len(each["updates"]) for each in log["folds"]] == [1, 1, 1]
    assert slow.task_id not in {update["task_id"] for each in log["folds"] for update in each["updates"]}
    (outcome,) = [each for each in rows(fleet, OutcomeRow, run) if each.task_id == slow.task_id]
    assert (outcome.disposition, outcome.accepted) == ("stale", 3)
    sweep_outcomes(fleet.state, starting=False)
    assert fleet.state.outcomes.path(outcome.digest) is None


def test_of_a_log_whose_rows_are_pruned_it_is_said_that_it_is_not_whole(fleet) -> None:
    devices = fleet.add_devices(2)
    run = fleet.create_run(schedule="buffered", target=1, concurrency=2, rounds=3)
    for _ in range(3):
        fleet.finish(devices[0])
        fleet.fold()
    assert len(run_log(fleet.state, run)["folds"]) == 3
    fleet.clock.now += 30 * 86_400
    assert prune_rows(fleet.state)
    with pytest.raises(RunError, match="not whole any more: of round 1 only 0 of 1 updates"):
        run_log(fleet.state, run)


@pytest.mark.parametrize(("settings", "needed"), [({}, 1), ({"rule": "median"}, 8), ({"schedule": "synchronous"}, 8)])
def test_a_buffer_needs_as_many_devices_as_updates_only_where_each_counts_once(fleet, settings, needed) -> None:
    run = fleet.create_run(**{"target": 8, "schedule": "buffered", **settings})
    assert run_status(fleet.state, run)["devices_needed"] == needed
