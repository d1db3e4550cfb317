from __future__ import annotations

import sqlite3
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy.exc import DBAPIError

from edgefl.errors import OutcomeRefusedError, StorageError
from edgefl.wire.messages import OutcomeStatus, Reason
from edgefl_server.storage import (
    NotWantedError,
    UnknownTaskError,
    accept_outcome,
    look_at_outcome,
    next_task,
    renew_lease,
    run_status,
    stop_run,
    sweep_outcomes,
    warnings,
)
from edgefl_server.storage.sessions import Session


@pytest.fixture(params=["sqlite", "postgresql"])
def kind_of_database(request: pytest.FixtureRequest) -> str:
    """What is promised here holds with each."""
    return str(request.param)


def counts(fleet, run: str, number: int = 1) -> dict[str, int]:
    outcomes = run_status(fleet.state, run)["history"][number - 1]["outcomes"]
    return {name: count for name, count in outcomes.items() if count}


def test_an_accepted_outcome_is_on_the_disk_under_its_hash(fleet) -> None:
    (device,) = fleet.add_devices(1)
    run = fleet.create_run(target=2)
    data = fleet.outcome(fleet.task(device)).encode()
    accept_outcome(fleet.state, device.device, fleet.task(device).task_id, data)
    (digest,) = fleet.state.outcomes
    assert fleet.state.outcomes.get(digest) == data
    assert counts(fleet, run) == {"accepted": 1}


def test_the_same_bytes_again_are_accepted_and_counted_once(fleet) -> None:
    devices = fleet.add_devices(2)
    run = fleet.create_run(target=2)
    outcome = fleet.outcome(fleet.task(devices[0]))
    for _ in range(3):
        fleet.accept(devices[0], outcome)
    assert counts(fleet, run) == {"accepted": 1}
    fleet.finish(devices[1])
    fleet.fold()
    fleet.accept(devices[0], outcome)
    stop_run(fleet.state, run)
    fleet.accept(devices[0], outcome)
    assert counts(fleet, run) == {"folded": 2}


def test_other_bytes_for_an_answered_task_are_refused_and_the_first_ones_stay(fleet) -> None:
    (device,) = fleet.add_devices(1)
    run = fleet.create_run(target=2)
    outcome = fleet.outcome(fleet.task(device))
    fleet.accept(device, outcome)
    with pytest.raises(OutcomeRefusedError) as refused:
        fleet.accept(device, replace(outcome, num_examples=99))
    assert refused.value.reason == "conflicting_outcome"
    assert counts(fleet, run) == {"accepted": 1}
    assert len(list(fleet.state.outcomes)) == 1


def test_an_outcome_of_somebody_elses_task_is_not_taken(fleet) -> None:
    first, second = fleet.add_devices(2)
    fleet.create_run(target=2)
    outcome = fleet.outcome(fleet.task(first))
    with pytest.raises(UnknownTaskError):
        fleet.accept(second, outcome)
    with pytest.raises(UnknownTaskError):
        accept_outcome(fleet.state, first.device, "no-such-task", outcome.encode())


def test_an_outcome_for_another_task_than_the_urls_is_refused(fleet) -> None:
    first, second = fleet.add_devices(2)
    fleet.create_run(target=2)
    mine, other = fleet.task(first), fleet.task(second)
    with pytest.raises(OutcomeRefusedError) as refused:
        accept_outcome(fleet.state, first.device, mine.task_id, fleet.outcome(other).encode())
    assert refused.value.reason == "wrong_task"


@pytest.mark.parametrize("bad", ["wrong_layout", "not_finite", "malformed"])
def test_a_refused_outcome_leaves_nothing_and_may_be_corrected(fleet, bad: str) -> None:
    (device,) = fleet.add_devices(1)
    run = fleet.create_run(target=2)
    good = fleet.outcome(fleet.task(device))
    data = {
        "wrong_layout": replace(good, layout_hash="0" * 64).encode(),
        "not_finite": replace(good, metrics=(replace(good.metrics[0], values=(float("nan"),)),)).encode(),
        "malformed": good.encode()[:100],
    }[bad]
    with pytest.raises(OutcomeRefusedError) as refused:
        accept_outcome(fleet.state, device.device, good.task_id, data)
    assert refused.value.reason == bad
    assert list(fleet.state.outcomes) == []
    assert counts(fleet, run) == {}
    fleet.accept(device, good)
    assert counts(fleet, run) == {"accepted": 1}


def test_surplus_gets_a_conflict_before_anything_is_kept(fleet) -> None:
    first, second = fleet.add_devices(2)
    run = fleet.create_run(target=1, over_selection=2)
    late = fleet.outcome(fleet.task(second))
    fleet.finish(first)
    with pytest.raises(NotWantedError) as refused:
        fleet.accept(second, late)
    assert refused.value.code == "surplus"
    fleet.fold()
    with pytest.raises(NotWantedError) as refused:
        fleet.accept(second, late)
    assert refused.value.code == "surplus"
    assert counts(fleet, run) == {"folded": 1}


def test_an_outcome_that_loses_the_race_for_the_last_place_leaves_no_file(fleet, monkeypatch) -> None:
    first, second = fleet.add_devices(2)
    fleet.create_run(target=1, over_selection=2)
    mine, other = fleet.outcome(fleet.task(first)), fleet.outcome(fleet.task(second))
    adopt = fleet.state.outcomes.adopt

    def adopt_while_another_is_faster(file: Path, digest: str) -> None:
        monkeypatch.setattr(fleet.state.outcomes, "adopt", adopt)
        fleet.accept(second, other)
        adopt(file, digest)

    monkeypatch.setattr(fleet.state.outcomes, "adopt", adopt_while_another_is_faster)
    with pytest.raises(NotWantedError) as refused:
        fleet.accept(first, mine)
    assert refused.value.code == "surplus"
    assert len(list(fleet.state.outcomes)) == 1


def test_two_copies_at_the_same_moment_are_both_accepted_and_counted_once(fleet, monkeypatch) -> None:
    (device,) = fleet.add_devices(1)
    run = fleet.create_run(target=2)
    outcome = fleet.outcome(fleet.task(device))
    adopt = fleet.state.outcomes.adopt

    def adopt_while_the_copy_is_faster(file: Path, digest: str) -> None:
        monkeypatch.setattr(fleet.state.outcomes, "adopt", adopt)
        fleet.accept(device, outcome)
        adopt(file, digest)

    monkeypatch.setattr(fleet.state.outcomes, "adopt", adopt_while_the_copy_is_faster)
    fleet.accept(device, outcome)
    assert counts(fleet, run) == {"accepted": 1}


def test_a_late_outcome_of_a_stopped_run_is_stale_and_what_was_accepted_is_discarded_visibly(fleet) -> None:
    first, second = fleet.add_devices(2)
    run = fleet.create_run(target=2)
    fleet.finish(first)
    late = fleet.outcome(fleet.task(second))
    stop_run(fleet.state, run)
    with pytest.raises(NotWantedError) as refused:
        fleet.accept(second, late)
    assert refused.value.code == "stale"
    assert counts(fleet, run) == {"discarded": 1}
    assert len(list(fleet.state.outcomes)) == 1


def test_an_outcome_after_its_place_went_to_another_device_is_stale(fleet) -> None:
    first, second = fleet.add_devices(2)
    fleet.create_run(target=1, lease_seconds=30)
    late = fleet.outcome(fleet.task(first))
    fleet.clock.now += 31
    fleet.task(second)
    with pytest.raises(NotWantedError) as refused:
        fleet.accept(first, late)
    assert refused.value.code == "stale"


def test_an_outcome_after_its_lease_is_welcome_while_the_place_is_free(fleet) -> None:
    (device,) = fleet.add_devices(1)
    run = fleet.create_run(target=2, lease_seconds=30)
    late = fleet.outcome(fleet.task(device))
    fleet.clock.now += 1000
    fleet.accept(device, late)
    assert counts(fleet, run) == {"accepted": 1}


@pytest.mark.parametrize("status", [OutcomeStatus.DECLINED, OutcomeStatus.FAILED])
def test_giving_up_is_accepted_and_shown_with_its_reason(fleet, status: OutcomeStatus) -> None:
    (device,) = fleet.add_devices(1)
    run = fleet.create_run(target=2)
    fleet.give_up(device, Reason.OUT_OF_MEMORY, status)
    entry = run_status(fleet.state, run)["history"][0]
    assert entry["reasons"] == {"out_of_memory": 1}
    assert counts(fleet, run) == {status.name.lower(): 1}


def test_when_every_device_fails_the_run_fails_and_says_why(fleet) -> None:
    devices = fleet.add_devices(2)
    run = fleet.create_run(target=2, rounds=9, max_failures=2)
    for _ in range(3):
        for device in devices:
            fleet.give_up(device, Reason.DATA_MISMATCH, OutcomeStatus.FAILED)
    status = run_status(fleet.state, run)
    assert status["state"] == "failed"
    assert "3 rounds in a row failed" in status["why"]
    assert [entry["state"] for entry in status["history"]] == ["failed"] * 3
    assert status["history"][0]["reasons"] == {"data_mismatch": 2}
    assert next_task(fleet.state, devices[0]) is None


def test_a_run_goes_on_after_a_failed_round(fleet) -> None:
    devices = fleet.add_devices(2)
    run = fleet.create_run(target=2, rounds=2, max_failures=2)
    for device in devices:
        fleet.give_up(device, Reason.INTERNAL, OutcomeStatus.FAILED)
    for device in devices:
        assert fleet.finish(device).cohort == 2
    fleet.fold()
    status = run_status(fleet.state, run)
    assert status["state"] == "done"
    assert [entry["state"] for entry in status["history"]] == ["failed", "done"]


def test_a_run_none_of_whose_rounds_was_done_is_failed(fleet) -> None:
    (device,) = fleet.add_devices(1)
    run = fleet.create_run(target=1, rounds=1)
    for _ in range(3):
        assert run_status(fleet.state, run)["state"] == "active"
        fleet.give_up(device, Reason.INTERNAL, OutcomeStatus.FAILED)
        fleet.clock.now += 60
    status = run_status(fleet.state, run)
    assert status["state"] == "failed"
    assert "1 device failed" in status["why"]


def test_one_device_with_wrong_data_costs_a_short_run_nothing_but_its_own_place(fleet) -> None:
    bad, good = fleet.add_devices(2)
    run = fleet.create_run(target=1, rounds=1)
    for _ in range(8):
        fleet.give_up(bad, Reason.DATA_MISMATCH, OutcomeStatus.FAILED)
        fleet.clock.now += 60
    assert run_status(fleet.state, run)["history"][0]["reasons"] == {"data_mismatch": 8}
    fleet.finish(good)
    fleet.fold()
    assert run_status(fleet.state, run)["state"] == "done"


@pytest.mark.parametrize("kind_of_database", ["sqlite"])
def test_a_disk_that_is_full_when_the_row_is_written_keeps_no_file_of_which_a_start_would_warn(
    fleet, monkeypatch
) -> None:
    (device,) = fleet.add_devices(1)
    fleet.create_run(target=2)
    outcome = fleet.outcome(fleet.task(device))

    def full(session: Session) -> None:
        raise DBAPIError.instance(None, None, sqlite3.OperationalError("database or disk is full"), sqlite3.Error)

    with monkeypatch.context() as patched:
        patched.setattr(Session, "commit", full)
        with pytest.raises(StorageError) as raised:
            fleet.accept(device, outcome)
    assert raised.value.full
    assert list(fleet.state.outcomes) == []
    assert sweep_outcomes(fleet.state).orphans == 0
    assert warnings(fleet.state) == []
    fleet.accept(device, outcome)
    assert len(list(fleet.state.outcomes)) == 1


def test_a_full_disk_accepts_nothing_and_keeps_nothing(fleet, monkeypatch) -> None:
    (device,) = fleet.add_devices(1)
    run = fleet.create_run(target=2)
    outcome = fleet.outcome(fleet.task(device))

    def full(file: Path, digest: str) -> None:
        raise StorageError("Could not write: No space left on device.")

    with monkeypatch.context() as patched:
        patched.setattr(fleet.state.outcomes, "adopt", full)
        with pytest.raises(StorageError):
            fleet.accept(device, outcome)
    assert counts(fleet, run) == {}
    fleet.accept(device, outcome)
    assert counts(fleet, run) == {"accepted": 1}


def test_a_crash_between_file_and_row_costs_nothing(make_fleet: Callable, monkeypatch) -> None:
    fleet = make_fleet("a")
    devices = fleet.add_devices(2)
    run = fleet.create_run(target=2)
    outcome = fleet.outcome(fleet.task(devices[0]))

    class Crash(BaseException):
        pass

    def crash(file: Path, digest: str) -> None:
        adopt(file, digest)
        raise Crash

    adopt = fleet.state.outcomes.adopt
    monkeypatch.setattr(fleet.state.outcomes, "adopt", crash)
    with pytest.raises(Crash):
        fleet.accept(devices[0], outcome)
    fleet.state.close()

    again = make_fleet("a", fleet.clock)
    again.devices = devices
    assert counts(again, run) == {}
    again.accept(devices[0], outcome)
    assert counts(again, run) == {"accepted": 1}


def test_the_largest_outcome_leaves_room_for_any_codec(fleet) -> None:
    (device,) = fleet.add_devices(1)
    fleet.create_run(target=1)
    task = fleet.task(device)
    outcome = fleet.outcome(task)
    assert len(outcome.encode()) < look_at_outcome(fleet.state, device.device, task.task_id, None).most_bytes < 2**21
    with pytest.raises(UnknownTaskError):
        look_at_outcome(fleet.state, "0" * 32, task.task_id, None)


def test_a_lease_is_to_be_renewed_when_a_third_of_it_has_passed(fleet) -> None:
    (device,) = fleet.add_devices(1)
    fleet.create_run(target=1, lease_seconds=30)
    task = fleet.task(device)

    def fades() -> bool:
        return look_at_outcome(fleet.state, device.device, task.task_id, "0" * 64).lease_fades

    assert not fades()
    fleet.clock.now += 9
    assert not fades()
    fleet.clock.now += 1
    assert fades()
    assert renew_lease(fleet.state, device.device, task.task_id) == 30
    assert not fades()
