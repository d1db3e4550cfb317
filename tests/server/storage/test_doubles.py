"""Two devices with one identity are noticed, and a device that is started again is not taken for two."""

from __future__ import annotations

import pytest

from edgefl_server.storage import runs_summary, tell_of_double, warnings
from edgefl_server.storage.doubles import Doubles

A, B, C = ("a" * 32, "b" * 32, "c" * 32)


def noticed(*instances: str, pause: float = 1.0) -> list[bool]:
    doubles = Doubles()
    return [doubles.notice("device", instance, pause * index) for index, instance in enumerate(instances)]


def test_two_processes_that_ask_in_turn_are_two() -> None:
    assert noticed(A, B, A, B) == [False, False, False, True]
    assert any(noticed(A, A, B, B, A, A, B, B))


def test_copies_of_a_copy_are_noticed_too() -> None:
    assert any(noticed(A, B, C, A, B, C))


def test_a_device_that_is_started_again_and_again_is_one() -> None:
    assert not any(noticed(*(f"{index:032x}" for index in range(1000))))


def test_a_request_that_was_under_way_when_the_device_was_started_again_is_no_second_one() -> None:
    assert not any(noticed(A, A, B, A, B[:-1] + "0", B[:-1] + "0"))


def test_it_is_told_once_an_hour() -> None:
    assert sum(noticed(*([A, B] * 3600), pause=0.5)) == 1
    assert sum(noticed(*([A, B] * 3601), pause=1.0)) == 2


@pytest.mark.parametrize("instance", ["", "x", "A" * 32, "a" * 33, "a" * 32 + "\n"])
def test_what_is_no_instance_counts_for_nothing(instance: str) -> None:
    assert not any(noticed(A, instance, A, instance, A, instance))


def test_the_operator_is_told_in_the_log_and_after_a_restart_too(make_fleet, caplog: pytest.LogCaptureFixture) -> None:
    fleet = make_fleet("a")
    first, second = fleet.add_devices(2)
    for instance in (A, B) * 10:
        fleet.clock.now += 1
        for device, seen in ((first.device, instance), (second.device, A)):
            if fleet.state.doubles.notice(device, seen, fleet.clock()):
                tell_of_double(fleet.state, device)
    assert caplog.text.count(f"device {first.device} exists twice") == 1
    fleet.state.close()
    fleet = make_fleet("a", fleet.clock)
    (warning,) = warnings(fleet.state)
    assert first.device in warning
    assert warnings(fleet.state, "others") == []
    assert runs_summary(fleet.state) == []
    fleet.clock.now += 8 * 86_400
    assert warnings(fleet.state) == []
