"""How often the status file is written."""

from __future__ import annotations

import itertools

import pytest

from edgefl_device_runtime.agent.journal import Budget


def written_at(asks, seconds, urgent):
    """When something is written that changes so many times a second."""
    budget, times = Budget(6, 10.0), []
    for tick in range(seconds * asks):
        now = 1000 + tick / asks
        if budget.wait(now, urgent) == 0:
            budget.spend(now)
            times.append(now - 1000)
    return times


def test_what_changes_all_the_time_is_written_six_times_and_then_six_times_a_minute():
    times = written_at(4, 120, urgent=True)
    assert times[:6] == [0, 0.25, 0.5, 0.75, 1, 1.25]
    assert times[6] == pytest.approx(10, abs=0.5)
    assert all(later - earlier == pytest.approx(10, abs=0.5) for earlier, later in itertools.pairwise(times[6:]))


def test_steps_are_written_once_in_a_pause():
    assert written_at(4, 40, urgent=False) == pytest.approx([0, 10, 20, 30], abs=1)
