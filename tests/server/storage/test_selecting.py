"""Whom a round asks: the drawn ones first, the next in line after a window, and the same for the same seed."""

from __future__ import annotations

import json

import pytest

from edgefl.errors import InvalidSettingError
from edgefl_server.aggregation import RunSettings, key_of
from edgefl_server.aggregation.selecting import SELECTIONS, Candidate
from edgefl_server.storage import authenticate, enrol, next_task
from edgefl_server.storage.cohorts import load_gathering
from edgefl_server.storage.selecting import device_key
from edgefl_server.storage.tables import CohortRow
from fake_device import Identity

WINDOW = {"selection": "random", "selection_window": 60}


def asked(fleet, devices):
    """Those of the devices that get a task, all of which ask."""
    return [index for index, device in enumerate(devices) if next_task(fleet.state, device) is not None]


def test_a_round_asks_the_drawn_ones_and_each_round_draws_anew_from_the_seed(make_fleet) -> None:
    def two_rounds(folder, seed, order):
        fleet = make_fleet(folder)
        devices = fleet.add_devices(20)
        fleet.create_run(target=3, rounds=9, seed=seed, **WINDOW)
        found = []
        for _ in range(2):
            chosen = [index for index in order if next_task(fleet.state, devices[index]) is not None]
            for index in chosen:
                fleet.finish(devices[index])
            fleet.fold()
            found.append(sorted(chosen))
        return found

    first = two_rounds("a", 1, range(20))
    assert [len(each) for each in first] == [3, 3]
    assert first[0] != first[1]
    assert two_rounds("b", 1, range(19, -1, -1)) == first
    assert two_rounds("c", 2, range(20)) != first


def test_after_each_window_twice_as_many_in_the_same_order_may_come(fleet) -> None:
    devices = fleet.add_devices(16)
    fleet.create_run(target=2, rounds=9, **WINDOW)
    drawn = asked(fleet, devices)
    assert len(drawn) == 2
    fleet.clock.now += 59
    assert asked(fleet, devices) == drawn  # the same tasks again
    fleet.clock.now += 301  # they are switched off: the next in line take their places
    late = [index for index in range(16) if index not in drawn and next_task(fleet.state, devices[index])]
    assert len(late) == 2


def test_places_that_nobody_takes_wait_for_the_drawn_ones_only_for_a_window(fleet) -> None:
    devices = fleet.add_devices(16)
    run = fleet.create_run(target=2, rounds=9, **WINDOW)
    with fleet.state.database.read() as session:
        bars = session.get_one(CohortRow, (run, 1)).admits["bars"]
        of = load_gathering(session, run)
        keys = [device_key(session, of, device) for device in devices]
    assert (len(bars), bars[:3], bars[3]) == (4, sorted(bars[:3]), None)
    admission, opened_at = of.standing.admission, of.standing.opened_at
    admitted = [sum(admission.admits(key, opened_at, opened_at + 60 * each) for key in keys) for each in range(4)]
    assert admitted == [2, 4, 8, 16]


def test_a_device_that_enrols_later_has_a_place_in_the_line_as_well(fleet) -> None:
    fleet.add_devices(4)
    fleet.create_run(target=4, rounds=9, **WINDOW)
    devices = fleet.add_devices(2)
    assert len(asked(fleet, devices)) == 4  # the line was no longer than the round


def test_those_who_took_part_come_last_where_the_least_recent_are_asked(fleet) -> None:
    devices = fleet.add_devices(9)
    fleet.create_run(target=3, rounds=9, selection="least-recent")
    rounds = []
    for _ in range(3):
        chosen = asked(fleet, devices)
        for index in chosen:
            fleet.finish(devices[index])
        fleet.fold()
        rounds.append(chosen)
    assert sorted(index for each in rounds for index in each) == list(range(9))


def test_devices_without_the_memory_are_never_asked_where_it_is_needed(fleet) -> None:
    for index, memory in enumerate((100, 4_000, None, 99)):
        identity = Identity.number(index)
        said = {} if memory is None else {"memory_bytes": memory}
        enrol(fleet.state, fleet.token, identity.device, identity.secret_hash, "people", said)
        fleet.devices.append(authenticate(fleet.state, identity.device, identity.secret))
    fleet.create_run(target=4, rounds=9, selection="capable", selection_memory_bytes=3_000)
    fleet.clock.now += 10_000
    assert asked(fleet, fleet.devices) == [1, 2]


def test_large_devices_are_drawn_as_often_as_they_are_large_and_fast_ones_come_first() -> None:
    settings = RunSettings(rounds=1, target=1, selection="by-size")
    sizes = {"small": 10, "large": 30}
    first = {"small": 0, "large": 0}
    for cohort in range(4000):
        keys = {name: key_of(Candidate(name, size), settings, 5, cohort) for name, size in sizes.items()}
        first[min(keys, key=keys.get)] += 1
    assert first["large"] / first["small"] == pytest.approx(3, rel=0.1)
    fastest = RunSettings(rounds=1, target=1, selection="fastest")
    candidates = [Candidate("slow", 1, 1, 9.0), Candidate("fast", 1, 1, 0.5), Candidate("new")]
    order = sorted(candidates, key=lambda each: key_of(each, fastest, 5, 1))
    assert [each.device for each in order] == ["new", "fast", "slow"]


def test_a_users_own_selection_is_one_function(fleet, monkeypatch) -> None:
    monkeypatch.setitem(SELECTIONS._entries, "last-ids", lambda candidate, drawn, settings: -int(candidate.device, 16))
    devices = fleet.add_devices(6)
    fleet.create_run(target=2, rounds=9, selection="last-ids")
    by_id = sorted(range(6), key=lambda index: -int(devices[index].device, 16))
    assert asked(fleet, devices) == sorted(by_id[:2])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"selection": "randm"}, "selection expects one of first-come, random, .* got 'randm'"),
        ({"selection_window": 5}, "selection_window has no meaning with selection first-come"),
        ({"selection": "capable"}, "selection capable and selection_memory_bytes have a meaning together only"),
        ({"schedule": "buffered", "selection": "random"}, "selection has no meaning with schedule buffered"),
    ],
)
def test_a_selection_that_is_none_or_contradicts_is_refused(fleet, settings, message) -> None:
    with pytest.raises(InvalidSettingError, match=message):
        fleet.create_run(**settings)


def test_an_admission_is_plain_json(fleet) -> None:
    fleet.add_devices(5)
    run = fleet.create_run(target=2, **WINDOW)
    with fleet.state.database.read() as session:
        admits = session.get_one(CohortRow, (run, 1)).admits
    assert json.loads(json.dumps(admits, allow_nan=False)) == admits
    assert admits["usual"] == 1.0
