"""A schedule whose cohort goes on while folds are merged: what storage keeps is what the schedule says."""

from __future__ import annotations

import pytest
from sqlalchemy import select

from edgefl.wire.messages import Reason
from edgefl_server.aggregation import fold
from edgefl_server.aggregation.schedules import SCHEDULES
from edgefl_server.storage import fold_round, pending_folds, run_status, stop_run
from edgefl_server.storage import folding as folding_module
from edgefl_server.storage.tables import AssignmentRow, CohortRow, FoldRow, OutcomeRow, RunRow, VersionRow
from extension.toy_schedule import Buffered


@pytest.fixture
def buffered(fleet, monkeypatch):
    monkeypatch.setitem(SCHEDULES._entries, "buffered", Buffered)

    def create(**settings: object) -> str:
        return fleet.create_run(**{"schedule": "buffered", "target": 3, "over_selection": 2, **settings})

    return create


def rows(fleet, of, run):
    with fleet.state.database.read() as session:
        found = session.scalars(select(of).where(of.run == run)).all()
        session.expunge_all()
    return found


@pytest.mark.parametrize("schedule", ["buffered", "synchronous"])
def test_outcomes_are_numbered_as_they_are_accepted_and_merged_in_the_order_of_the_schedule(
    fleet, buffered, monkeypatch, schedule: str
) -> None:
    merged = []

    def noting(strategy, before, contributions, *rest):
        merged.append([each.task_id for each in contributions])
        return fold(strategy, before, contributions, *rest)

    monkeypatch.setattr(folding_module, "fold", noting)
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


def test_no_two_accepted_outcomes_of_a_device_have_one_seed_and_what_repeats_one_has_its_seed(fleet, buffered) -> None:
    (device,) = fleet.add_devices(1)
    buffered(target=5, rounds=9)
    seeds = [fleet.finish(device).seed for _ in range(3)]
    given_up = fleet.give_up(device, Reason.BUSY)
    seeds.append(fleet.finish(device).seed)
    assert given_up.seed == seeds[-1]
    assert len(set(seeds)) == 4
