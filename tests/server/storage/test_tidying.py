"""What does not stay, and what must."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import func, select

from edgefl.errors import OutcomeRefusedError
from edgefl.wire.messages import MetricState, Outcome, OutcomeStatus, Reason
from edgefl_server.storage import (
    ServerState,
    close_due_rounds,
    fold_round,
    pending_folds,
    prune_rows,
    renew_lease,
    run_status,
    settle_folds,
    stop_run,
    sweep_outcomes,
)
from edgefl_server.storage.tables import AssignmentRow, FoldRow, OutcomeRow

DAY = 86_400.0


def files(fleet) -> int:
    return len(list(fleet.state.outcomes))


def rows(fleet) -> tuple[int, int]:
    with fleet.state.database.read() as session:
        return tuple(session.scalar(select(func.count()).select_from(table)) for table in (AssignmentRow, OutcomeRow))


@pytest.mark.parametrize("status", [OutcomeStatus.DECLINED, OutcomeStatus.FAILED])
def test_a_device_that_gives_up_leaves_no_file_however_much_it_says_and_may_say_it_again(fleet, status) -> None:
    (device,) = fleet.add_devices(1)
    run = fleet.create_run(target=1, max_failures=3)
    task = fleet.task(device)
    metrics = tuple(MetricState(f"m{index}", (1.0,) * 400) for index in range(200))
    outcome = Outcome(
        task.task_id, task.base_weights_hash, task.layout_hash, status=status, reason=Reason.BUSY, metrics=metrics
    )
    assert len(outcome.encode()) > 500_000
    for _ in range(2):
        fleet.accept(device, outcome)
        assert files(fleet) == 0
    with pytest.raises(OutcomeRefusedError) as refused:
        fleet.accept(device, Outcome(task.task_id, "", "", status=status, reason=Reason.NOT_READY))
    assert refused.value.reason == "conflicting_outcome"
    assert run_status(fleet.state, run)["history"][0]["reasons"] == {"busy": 1}


def test_what_an_older_server_kept_of_those_that_gave_up_is_deleted(fleet) -> None:
    (device,) = fleet.add_devices(1)
    fleet.create_run(target=1, max_failures=3)
    fleet.give_up(device, Reason.BUSY)
    with fleet.state.database.write() as session:
        session.scalars(select(OutcomeRow)).one().digest = fleet.state.outcomes.put(b"as before")
    assert sweep_outcomes(fleet.state).deleted == 1


@pytest.mark.parametrize(("days", "stays"), [(7.0, True), (0.0, False)])
def test_discarded_outcomes_are_kept_for_as_long_as_the_operator_wants(
    make_fleet: Callable, tmp_path: Path, days: float, stays: bool
) -> None:
    fleet = make_fleet("a")
    fleet.state.close()
    fleet.state = ServerState(tmp_path / "a", fleet.clock, fleet.clock, keep_days=days)
    (device,) = fleet.add_devices(1)
    run = fleet.create_run(target=2)
    fleet.finish(device)
    stop_run(fleet.state, run)
    sweep_outcomes(fleet.state, starting=False)
    assert files(fleet) == stays
    fleet.clock.now += 7 * DAY - 1
    sweep_outcomes(fleet.state, starting=False)
    assert files(fleet) == stays
    fleet.clock.now += 2
    sweep_outcomes(fleet.state, starting=False)
    assert files(fleet) == 0
    assert run_status(fleet.state, run)["history"][0]["outcomes"]["discarded"] == 1
    fleet.state.close()


def test_an_accepted_outcome_stays_for_ever_and_so_does_one_that_is_being_accepted(fleet) -> None:
    (device,) = fleet.add_devices(1)
    fleet.create_run(target=2)
    fleet.finish(device)
    fleet.state.outcomes.put(b"its row is not written yet")
    fleet.clock.now += 1000 * DAY
    assert sweep_outcomes(fleet.state, starting=False).deleted == 0
    prune_rows(fleet.state)
    assert files(fleet) == 2
    assert rows(fleet) == (1, 1)


def test_rows_of_old_rounds_go_and_nothing_that_is_shown_or_asked_for_changes(fleet) -> None:
    devices = fleet.add_devices(3)
    run = fleet.create_run(target=2, rounds=12, max_failures=5)
    for number in range(8):
        fleet.give_up(devices[number % 2], Reason.BUSY)
        for device in (devices[2], devices[1 - number % 2]):
            fleet.finish(device)
        fleet.fold()
        fleet.clock.now += 100
    before, history = rows(fleet), run_status(fleet.state, run)["history"]
    expected = {device.device: fleet.task(device).continues for device in devices[:2]}
    assert prune_rows(fleet.state) == 0
    assert history[0]["outcomes"]["folded"] == 2
    fleet.clock.now += 7 * DAY
    assert prune_rows(fleet.state) > 0
    assert prune_rows(fleet.state) == 0
    after = run_status(fleet.state, run)["history"]
    for old, new in zip(history[:8], after, strict=False):
        assert (old["outcomes"], old["reasons"], old["loss"]) == (new["outcomes"], new["reasons"], new["loss"])
    assert rows(fleet)[0] == 2 + 3  # the open tasks, and each device's latest folded one
    assert rows(fleet)[1] == 3 < before[1]
    assert {device.device: fleet.task(device).continues for device in devices[:2]} == expected

    stop_run(fleet.state, run)
    fleet.clock.now += 7 * DAY + 1
    prune_rows(fleet.state)
    assert rows(fleet) == (0, 0)
    counted = [entry["outcomes"] for entry in run_status(fleet.state, run)["history"]]
    assert counted[:8] == [entry["outcomes"] for entry in history[:8]]


def test_the_same_bytes_are_accepted_again_for_a_week_whatever_the_retention_is(
    make_fleet: Callable, tmp_path: Path
) -> None:
    fleet = make_fleet("a")
    fleet.state.close()
    fleet.state = ServerState(tmp_path / "a", fleet.clock, fleet.clock, keep_days=0)
    (device,) = fleet.add_devices(1)
    fleet.create_run(target=1, rounds=1)
    outcome = fleet.outcome(fleet.task(device))
    fleet.accept(device, outcome)
    fleet.fold()
    fleet.clock.now += 7 * DAY - 1
    prune_rows(fleet.state)
    fleet.accept(device, outcome)
    fleet.state.close()


def test_rows_are_pruned_with_many_tasks_in_one_round(fleet) -> None:
    (device,) = fleet.add_devices(1)
    run = fleet.create_run(target=1, rounds=2)
    fleet.finish(device)
    fleet.fold()
    with fleet.state.database.write() as session:
        for attempt in range(1200):
            session.add(
                AssignmentRow(
                    task_id=f"{run}-000001-{device.device}-x{attempt}",
                    run=run,
                    cohort=1,
                    version=0,
                    fold=1,
                    device=device.device,
                    attempt=attempt + 2,
                    turn=1,
                    continues="",
                    state="abandoned",
                    assigned_clock=0.0,
                    ends_clock=0.0,
                    leased_until_clock=0.0,
                    leased_to_the_end=False,
                    ended_clock=0.0,
                    temporary=False,
                    failed_before=False,
                )
            )
    fleet.clock.now += 8 * DAY
    assert prune_rows(fleet.state) == 1200
    with fleet.state.database.read() as session:
        assert session.get_one(FoldRow, (run, 1)).pruned == {}


def test_tasks_that_took_too_long_are_still_counted_when_their_rows_are_gone(fleet) -> None:
    devices = fleet.add_devices(2)
    run = fleet.create_run(target=2, minimum=1, rounds=2, lease_seconds=10, task_seconds=20, max_failures=1)
    fleet.finish(devices[0])
    task = fleet.task(devices[1])
    for _ in range(3):
        fleet.clock.now += 7
        renew_lease(fleet.state, devices[1].device, task.task_id)
    close_due_rounds(fleet.state)
    fleet.fold()
    before = run_status(fleet.state, run)["history"][0]
    assert before["reasons"] == {"out_of_time": 1}
    fleet.clock.now += 8 * DAY
    prune_rows(fleet.state)
    assert run_status(fleet.state, run)["history"][0]["reasons"] == {"out_of_time": 1}
    stop_run(fleet.state, run)
    fleet.clock.now += 8 * DAY
    prune_rows(fleet.state)
    assert rows(fleet) == (0, 0)
    after = run_status(fleet.state, run)["history"][0]
    assert (after["reasons"], after["outcomes"]) == (before["reasons"], before["outcomes"])


def test_a_stop_may_settle_folds_while_they_are_being_settled(fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    devices = fleet.add_devices(2)
    fleet.create_run(target=2)
    for device in devices:
        fleet.finish(device)
    ((run, number),) = pending_folds(fleet.state)
    assert fold_round(fleet.state, run, number)
    assert len(fleet.state.folded) == 2
    keep = fleet.state.keep_generation

    def meanwhile() -> None:
        monkeypatch.setattr(fleet.state, "keep_generation", keep)
        settle_folds(fleet.state)

    monkeypatch.setattr(fleet.state, "keep_generation", meanwhile)
    settle_folds(fleet.state)
    assert not fleet.state.folded
    assert list(fleet.state.outcomes) == []
