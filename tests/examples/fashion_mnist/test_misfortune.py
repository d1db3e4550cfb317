from __future__ import annotations

from collections.abc import Callable

import pytest

from examples.fashion_mnist.misfortune import MOST_KILLS_PER_ROUND, Misfortune


class FakeDevice:
    def __init__(self, name: int, events: list[tuple[str, int]]) -> None:
        self.name, self.events, self.running = name, events, True

    def kill(self) -> None:
        self.events.append(("kill", self.name))
        self.running = False


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def events() -> list[tuple[str, int]]:
    return []


@pytest.fixture
def make(clock: Clock, events: list[tuple[str, int]]) -> Callable[[int], Misfortune]:
    def restart(device: FakeDevice) -> None:
        events.append(("start", device.name))
        device.running = True

    return lambda seed: Misfortune([FakeDevice(name, events) for name in range(5)], restart, seed, clock)


def live_through(misfortune: Misfortune, clock: Clock, seconds: int) -> None:
    for _ in range(seconds * 2):
        clock.now += 0.5
        misfortune()


def test_whoever_is_killed_is_started_again_at_once(
    make: Callable[[int], Misfortune], clock: Clock, events: list[tuple[str, int]]
) -> None:
    live_through(make(1), clock, 60)
    kills, starts = events[::2], events[1::2]
    assert [name for _, name in kills] == [name for _, name in starts]
    assert {what for what, _ in kills} == {"kill"}


def test_a_round_sees_a_bounded_number_of_kills_and_the_next_one_new_ones(
    make: Callable[[int], Misfortune], clock: Clock
) -> None:
    misfortune = make(1)
    live_through(misfortune, clock, 600)
    assert misfortune.kills == MOST_KILLS_PER_ROUND
    misfortune.next_round(10)
    live_through(misfortune, clock, 600)
    assert misfortune.kills == 2 * MOST_KILLS_PER_ROUND


def test_the_same_seed_meets_the_same_devices(
    make: Callable[[int], Misfortune], clock: Clock, events: list[tuple[str, int]]
) -> None:
    courses = []
    for seed in (1, 1, 2, 3):
        events.clear()
        misfortune = make(seed)
        for _ in range(5):
            live_through(misfortune, clock, 60)
            misfortune.next_round(10)
        courses.append(list(events))
    assert courses[0] == courses[1]
    assert courses[0] != courses[2] != courses[3]


def test_a_device_that_has_ended_is_left_in_peace(clock: Clock, events: list[tuple[str, int]]) -> None:
    device = FakeDevice(0, events)
    device.running = False
    misfortune = Misfortune([device], lambda each: events.append(("start", each.name)), 1, clock)
    live_through(misfortune, clock, 60)
    assert events == []
    assert misfortune.kills == 0
