from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgefl_server.storage import ServerState, close_due_rounds, renew_lease, run_status, runs_summary
from edgefl_server.storage import state as state_module
from edgefl_server.storage.clock import Reading, ServerClock

DAY = 86_400.0


@dataclass
class Machine:
    """A machine whose clocks a test moves."""

    boot: str = "first boot"
    up: float = 1000.0
    date: float = 1e9

    def passes(self, seconds: float) -> None:
        self.up += seconds
        self.date += seconds

    def restarts(self, off: float, wrong: float = 0.0) -> None:
        self.boot, self.up, self.date = self.boot + "+", 5.0, self.date + off + wrong

    def clock(self, saved: Reading | None) -> ServerClock:
        return ServerClock(saved, self.boot, lambda: self.up, lambda: self.date)


def test_a_wall_clock_that_is_set_changes_nothing() -> None:
    machine = Machine()
    clock = machine.clock(None)
    before = clock()
    for jump in (-DAY, DAY, -1e9, 40 * 365 * DAY):
        machine.date += jump
        assert clock() == before
    machine.passes(60)
    assert clock() == before + 60


@pytest.mark.parametrize("jump", [0.0, -DAY, DAY])
def test_a_server_that_starts_again_goes_on_exactly_whatever_the_wall_clock_says(jump: float) -> None:
    machine = Machine()
    clock = machine.clock(None)
    kept = clock.reading()
    machine.passes(50)  # killed: nothing more was kept
    before = clock()
    machine.date += jump
    machine.passes(10)
    assert machine.clock(kept)() == before + 10


@pytest.mark.parametrize(
    ("off", "wrong", "expected"), [(600, 0, 600), (600, -DAY, 0), (600, 1000 * DAY, DAY), (0, -1e9, 0)]
)
def test_a_machine_that_was_off_counts_what_the_wall_clock_saw_within_a_day(off: float, wrong: float, expected) -> None:
    machine = Machine()
    kept = machine.clock(None).reading()
    machine.restarts(off, wrong)
    assert machine.clock(kept)() == kept.clock + expected


@given(
    st.lists(
        st.tuples(st.sampled_from(["pass", "set", "kill", "reboot", "keep"]), st.floats(-1e6, 1e6, allow_nan=False)),
        max_size=30,
    )
)
def test_it_never_goes_back(events: list[tuple[str, float]]) -> None:
    machine = Machine()
    clock = machine.clock(None)
    kept, latest = clock.reading(), clock()
    for what, amount in events:
        if what == "pass":
            machine.passes(abs(amount))
        elif what == "set":
            machine.date += amount
        elif what == "kill":
            clock = machine.clock(kept)
        elif what == "reboot":
            kept = clock.reading()  # what a machine that is shut down keeps
            machine.restarts(abs(amount))
            clock = machine.clock(kept)
            kept = clock.reading()  # and what a server keeps when it starts
        else:
            kept = clock.reading()
        assert clock() >= latest - 1e-3
        latest = clock()


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    machine = Machine()
    monkeypatch.setattr(state_module, "boot_id", lambda: machine.boot)
    monkeypatch.setattr(state_module, "seconds_since_boot", lambda: machine.up)
    return machine


@pytest.mark.parametrize("jump", [-DAY, DAY])
@pytest.mark.parametrize("restart", [False, True])
def test_a_round_of_sixty_seconds_ends_after_sixty_seconds_whatever_happens_to_the_wall_clock(
    make_fleet: Callable, tmp_path: Path, machine: Machine, jump: float, restart: bool
) -> None:
    def opened() -> ServerState:
        return ServerState(tmp_path / "state", date=lambda: machine.date)

    fleet = make_fleet("state")
    fleet.state.close()
    fleet.state = opened()
    device, other = fleet.add_devices(2)
    run = fleet.create_run(target=2, minimum=1, deadline_seconds=60, lease_seconds=50)
    fleet.finish(device)
    task = fleet.task(other)
    machine.passes(30)
    machine.date += jump
    if restart:
        fleet.state.close()
        fleet.state = opened()
    assert close_due_rounds(fleet.state) is False
    assert renew_lease(fleet.state, other.device, task.task_id) == 50
    machine.passes(29.5)
    assert close_due_rounds(fleet.state) is False
    machine.passes(0.6)
    assert close_due_rounds(fleet.state) is True
    fleet.fold()
    entry = run_status(fleet.state, run)["history"][0]
    assert entry["state"] == "done"
    assert entry["seconds"] == pytest.approx(60.1)
    fleet.state.close()


def test_runs_are_in_the_order_of_their_creation_although_the_wall_clock_was_set_back(
    make_fleet: Callable, tmp_path: Path, machine: Machine
) -> None:
    make_fleet("state").state.close()
    state = ServerState(tmp_path / "state", date=lambda: machine.date)
    fleet = make_fleet("other")
    fleet.state.close()
    fleet.state = state
    runs = []
    for _ in range(3):
        runs.append(fleet.create_run())
        machine.passes(1)
        machine.date -= DAY
    assert [entry["run"] for entry in runs_summary(state)] == runs
    dates = [entry["created_at"] for entry in runs_summary(state)]
    assert dates == sorted(dates, reverse=True)  # what people read is what the wall clock said
    state.close()


def test_a_fleet_that_vanished_before_its_first_task_ends_a_run_that_has_a_deadline(fleet) -> None:
    run, patient = fleet.create_run(target=1, deadline_seconds=60), fleet.create_run(target=1)
    for _ in range(3):
        fleet.clock.now += 59
        assert close_due_rounds(fleet.state) is False
        fleet.clock.now += 1
        assert close_due_rounds(fleet.state) is True
    status = run_status(fleet.state, run)
    assert status["state"] == "failed"
    assert "the deadline of 60 s passed" in status["why"]
    assert run_status(fleet.state, patient)["state"] == "active"


def test_the_deadline_counts_from_the_first_task_once_there_is_one(fleet) -> None:
    (device,) = fleet.add_devices(1)
    fleet.create_run(target=1, deadline_seconds=60)
    fleet.clock.now += 50
    assert fleet.task(device).deadline_seconds == 60
    fleet.clock.now += 50
    assert close_due_rounds(fleet.state) is False
