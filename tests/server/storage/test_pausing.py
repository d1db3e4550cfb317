"""Pauses, and runs that share the devices of a population."""

from __future__ import annotations

import pytest

from edgefl.errors import RunError
from edgefl.wire.messages import TaskKind
from edgefl_server.storage import (
    close_due_rounds,
    ended_runs,
    next_task,
    pause_run,
    resume_run,
    run_status,
    stop_run,
    work_for,
)


def test_a_paused_run_hands_out_nothing_takes_what_devices_are_at_and_goes_on(fleet) -> None:
    devices = fleet.add_devices(3)
    run = fleet.create_run(target=2)
    task = fleet.task(devices[0])
    assert pause_run(fleet.state, run) == run
    assert pause_run(fleet.state, run) == run
    assert next_task(fleet.state, devices[1]) is None
    assert work_for(fleet.state, "people")[:2] == (0, 1)  # devices that end with the work stay
    assert ended_runs(fleet.state, "people", [run]) == []  # and forget nothing
    assert next_task(fleet.state, devices[0]).task_id == task.task_id  # after a restart it goes on
    fleet.accept(devices[0], fleet.outcome(task))
    assert run_status(fleet.state, run)["state"] == "paused"
    resume_run(fleet.state, run)
    fleet.finish(devices[1])
    fleet.fold()
    assert run_status(fleet.state, run)["history"][0]["state"] == "done"


def test_what_is_full_is_merged_in_a_pause_and_the_next_round_waits(fleet) -> None:
    devices = fleet.add_devices(2)
    run = fleet.create_run(target=2)
    tasks = [fleet.task(device) for device in devices]
    pause_run(fleet.state, run)
    for device, task in zip(devices, tasks, strict=True):
        fleet.accept(device, fleet.outcome(task))
    fleet.fold()
    status = run_status(fleet.state, run)
    assert (status["state"], [entry["state"] for entry in status["history"]]) == ("paused", ["done", "selecting"])
    assert next_task(fleet.state, devices[0]) is None


def test_a_paused_run_is_not_evaluated_either_and_the_evaluation_has_as_much_time_left(fleet) -> None:
    devices = fleet.add_devices(2)
    run = fleet.create_run(target=2, evaluate_every=1, deadline_seconds=60, over_selection=1)
    started = fleet.task(devices[0])
    assert started.kind is TaskKind.EVALUATE
    fleet.clock.now += 50
    pause_run(fleet.state, run)
    assert next_task(fleet.state, devices[1]) is None
    assert work_for(fleet.state, "people")[:2] == (0, 2)
    fleet.clock.now += 10_000
    assert close_due_rounds(fleet.state) is False
    resume_run(fleet.state, run)
    again = fleet.task(devices[1])
    assert (again.kind, again.deadline_seconds) == (TaskKind.EVALUATE, pytest.approx(10))


def test_deadlines_stand_still_while_a_run_pauses(fleet) -> None:
    devices = fleet.add_devices(2)
    run = fleet.create_run(target=2, deadline_seconds=60, minimum=1, over_selection=1)
    fleet.finish(devices[0])
    fleet.clock.now += 50
    pause_run(fleet.state, run)
    fleet.clock.now += 10_000
    assert close_due_rounds(fleet.state) is False
    resume_run(fleet.state, run)
    assert fleet.task(devices[1]).deadline_seconds == pytest.approx(10)
    fleet.clock.now += 9
    assert close_due_rounds(fleet.state) is False
    fleet.clock.now += 2
    assert close_due_rounds(fleet.state) is True


def test_only_what_goes_on_pauses_and_only_what_pauses_is_resumed(fleet) -> None:
    run = fleet.create_run()
    with pytest.raises(RunError, match="cannot be resumed: it is active"):
        resume_run(fleet.state, run)
    pause_run(fleet.state, run)
    assert stop_run(fleet.state, run) is True
    with pytest.raises(RunError, match="cannot be paused: it is stopped"):
        pause_run(fleet.state, run)


def test_runs_of_a_population_are_served_in_turn(fleet) -> None:
    devices = fleet.add_devices(8)
    older = fleet.create_run(target=8, rounds=9)
    fleet.clock.now += 1
    newer = fleet.create_run(target=8, rounds=9)
    runs = [fleet.finish(device).run for device in devices]
    assert sorted(runs) == sorted([older, newer] * 4)
    assert runs[::2] == [older] * 4


def test_a_run_that_comes_later_or_paused_does_not_catch_up_with_what_others_had(fleet) -> None:
    devices = fleet.add_devices(15)
    older = fleet.create_run(target=20, rounds=9)
    for device in devices[:6]:
        fleet.finish(device)
    fleet.clock.now += 1
    newer = fleet.create_run(target=20, rounds=9)
    assert [fleet.finish(device).run for device in devices[6:10]] == [older, newer, older, newer]
    pause_run(fleet.state, newer)
    assert [fleet.finish(device).run for device in devices[10:13]] == [older] * 3
    resume_run(fleet.state, newer)
    assert {fleet.finish(device).run for device in devices[13:]} == {older, newer}
