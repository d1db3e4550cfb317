"""When devices are there: functions of seed, device and time; and a run that reckons with it, as a server would."""

from __future__ import annotations

import math

import numpy as np
import pytest

from edgefl.errors import RunError
from edgefl_server.aggregation.schedules import SCHEDULES
from edgefl_simulation.pace import Course
from edgefl_simulation.profiles import Cost, Deployment, profile_of
from edgefl_simulation.profiles.availability import DAY, Always, Diurnal, Markov, Member, back_at, gone_at
from edgefl_simulation.profiles.traces import read_trace
from extension.toy_schedule import Buffered
from simulated_runs import FakeEngine, coordinator, device_of

HOUR = 3600.0


def who(device=0, seed=1):
    return Member(seed, device, f"device-{device:06d}")


def test_a_device_that_is_always_there_never_goes():
    assert back_at(Always(), who(), 5.0) == 5.0
    assert gone_at(Always(), who(), 5.0) == math.inf


def test_a_diurnal_device_comes_at_its_hour_each_day():
    rule = Diurnal(from_hour=22, hours=8, spread_hours=0)
    assert back_at(rule, who(), 5 * HOUR) == 5 * HOUR, "it stays until six in the morning"
    assert gone_at(rule, who(), 5 * HOUR) == pytest.approx(6 * HOUR)
    assert back_at(rule, who(), 12 * HOUR) == pytest.approx(22 * HOUR)
    assert back_at(rule, who(), 3 * DAY + 12 * HOUR) == pytest.approx(3 * DAY + 22 * HOUR)
    assert gone_at(Diurnal(hours=24), who(), 0.0) == math.inf
    assert back_at(Diurnal(from_hour=5e-324, spread_hours=0), who(), 0.0) == pytest.approx(0.0)
    comes = [back_at(Diurnal(from_hour=12, hours=2, spread_hours=4), who(number), 0.0) for number in range(200)]
    assert 10 * HOUR <= min(comes) < 10.2 * HOUR
    assert 13.8 * HOUR < max(comes) <= 14 * HOUR


def test_a_markov_device_is_there_for_its_share_of_the_time_whenever_one_looks():
    rule = Markov(mean_on_seconds=600, mean_off_seconds=1800)
    times = np.linspace(0, 500 * HOUR, 4000)
    states = [rule.stretch(who(3), float(now)) for now in times]
    share = np.mean([there for there, _ in states])
    assert share == pytest.approx(0.25, abs=0.05)
    assert [rule.stretch(who(3), float(now)) for now in times[::-1]] == states[::-1]
    assert all(end > now for now, (_, end) in zip(times, states, strict=True))
    away = next(now for now, (there, _) in zip(times, states, strict=True) if not there)
    back = back_at(rule, who(3), float(away))
    assert rule.stretch(who(3), back)[0]
    assert not rule.stretch(who(3), back - 1e-3)[0]
    assert rule.stretch(who(3), 0.0) != rule.stretch(who(4), 0.0)


def test_a_trace_is_followed_and_begins_anew(tmp_path):
    (tmp_path / "t.csv").write_text(
        "device,from,to,state\ndevice-000000,0,10,off\ndevice-000000,10,30,on\ndevice-000000,30,40,off\nb,0,40,off\n"
    )
    trace = read_trace(tmp_path / "t.csv")
    assert back_at(trace, who(), 0.0) == 10.0
    assert gone_at(trace, who(), 12.0) == 30.0
    assert back_at(trace, who(), 30.0) == 50.0
    assert gone_at(trace, who(), 4015.0) == 4030.0
    others = {back_at(trace, who(number), 0.0) for number in range(1, 30)}
    assert others == {10.0, math.inf}, "other devices are like one of the two, and b never comes"


class There:
    """Devices that are there at the times that are given by number, and take a second."""

    def __init__(self, times, takes=1.0):
        self.times, self.takes = times, takes

    def back(self, seed, device, now):
        return min((max(now, start) for start, end in self.times[device] if now < end), default=math.inf)

    def course(self, work):
        (gone,) = (end for start, end in self.times[work.device] if start <= work.now < end)
        done = work.now + self.takes
        return Course(work.now, work.now, done, gone=gone)


def test_a_device_that_is_not_there_gets_no_task_and_the_round_waits_until_one_is_back():
    engine = FakeEngine()
    times = {0: [(0, 1e9)], 1: [(500.0, 1e9)], 2: [(0, 1e9)], 3: [(90_000.0, 1e9)]}
    run = coordinator(engine, devices=4, pace=There(times), target=3, rounds=1)
    (only,) = run.rounds()
    assert only.clock == 501.0
    assert sorted(device_of(task) for task in engine.tasks) == [0, 1, 2]


def test_a_night_without_devices_is_no_end_of_the_run_but_a_month_is():
    engine = FakeEngine()
    times = {number: [(100_000.0, 1e9)] for number in range(3)}
    (only,) = coordinator(engine, devices=3, pace=There(times), rounds=1).rounds()
    assert only.clock == 100_001.0
    part = {0: [(0, 1e9)], 1: [(0, 1e9)], 2: [(3 * DAY, 1e9)], 3: [(9 * DAY, 1e9)]}
    (only,) = coordinator(FakeEngine(), devices=4, pace=There(part), rounds=1).rounds()
    assert only.clock == 3 * DAY + 1
    never = coordinator(FakeEngine(), devices=3, pace=There({n: [(5e6, 1e9)] for n in range(3)}), rounds=1)
    with pytest.raises(RunError, match="no further one came for 2,592,000"):
        next(never.rounds())
    short = {number: [(day * DAY, day * DAY + 1) for day in range(1, 99)] for number in range(3)}
    with pytest.raises(RunError, match="no further one came for"):
        next(coordinator(FakeEngine(), devices=3, pace=There(short, takes=5.0), rounds=1, lease_seconds=60).rounds())


def test_a_device_that_goes_away_in_the_middle_is_not_heard_of_again_and_its_lease_ends():
    engine = FakeEngine()
    times = {0: [(0, 1e9)], 1: [(0, 1e9)], 2: [(0, 3.0)], 3: [(20.0, 1e9)]}
    run = coordinator(engine, devices=4, pace=There(times, takes=5.0), lease_seconds=60, rounds=1)
    (only,) = run.rounds()
    assert only.outcomes == {"done": 3}
    assert sorted(device_of(task) for task in engine.tasks) == [0, 1, 3], "nothing is computed of what would not come"
    assert only.clock == 25.0 or only.clock == pytest.approx(65.0, abs=0.1)


def test_where_there_is_no_other_device_one_that_has_come_back_begins_anew_once_its_time_is_over():
    engine = FakeEngine()
    times = {0: [(0, 1e9)], 1: [(0, 1e9)], 2: [(0, 3.0), (100.0, 1e9)]}
    settings = {"lease_seconds": 60, "task_seconds": 720, "rounds": 1}
    (only,) = coordinator(engine, devices=3, pace=There(times, takes=5.0), **settings).rounds()
    assert sorted(device_of(task) for task in engine.tasks) == [0, 1, 2]
    assert 725 <= only.clock <= 725 + 60
    assert only.costs.device_seconds == 5 + 5 + 3 + 5


class Slow(There):
    """The upload takes a second for each byte."""

    def course(self, work):
        (gone,) = (end for start, end in self.times[work.device] if start <= work.now < end)
        return Course(work.now, work.now + 2, work.now + 5, byte_seconds=1.0, gone=gone, profile="slow", watts=2.0)


def test_a_round_lasts_its_download_its_work_and_its_upload_and_says_what_was_sent():
    engine = FakeEngine(bytes_up=16)
    times = {number: [(0, 1e9)] for number in range(3)}
    first, second = coordinator(engine, devices=3, pace=Slow(times), rounds=2).rounds()
    assert first.clock == 5 + 16
    assert first.costs.phases == {"download": 2.0, "compute": 3.0, "upload": 16.0, "waiting": 0.0}
    weights, model = 4 * 4, 1
    assert first.costs.bytes_down == 3 * (weights + model), "the model file comes with the first task only"
    assert second.costs.bytes_down == 3 * weights
    assert (first.costs.bytes_up, second.costs.bytes_up) == (48, 48)
    assert first.costs.device_seconds == 3 * 21
    assert first.costs.joules == 2 * 3 * 21
    assert first.costs.profiles == {"slow": 3}


def test_a_device_that_goes_away_while_it_sends_has_not_sent():
    engine = FakeEngine(bytes_up=16)
    times = {0: [(0, 1e9)], 1: [(0, 10.0)], 2: [(0, 1e9)], 3: [(100.0, 1e9)]}
    (only,) = coordinator(engine, devices=4, pace=Slow(times), lease_seconds=60, rounds=1).rounds()
    assert sorted({device_of(task) for task in engine.tasks}) in ([0, 1, 2, 3], [0, 2, 3])
    assert only.outcomes == {"done": 3}
    assert only.clock == pytest.approx(121.0, abs=0.1)
    assert only.costs.bytes_up == 48


def test_what_waits_for_others_is_said_and_the_parts_add_up():
    times = {0: [(0, 1e9)], 1: [(50.0, 1e9)], 2: [(0, 1e9)]}
    (only,) = coordinator(FakeEngine(), devices=3, pace=There(times), rounds=1).rounds()
    assert only.costs.phases["waiting"] == 50.0
    assert sum(only.costs.phases.values()) == only.costs.seconds == only.clock


PHONES = {
    "devices": [
        {"like": "pi4", "share": 0.5, "reliability": {"drop_out": 0.2}},
        {
            "like": "phone",
            "share": 0.5,
            "availability": {"kind": "markov", "mean_on_seconds": 60, "mean_off_seconds": 300},
        },
    ]
}


def deployment(devices, profile=PHONES, cost=None):
    names = [f"device-{number:06d}" for number in range(devices)]
    return Deployment(profile_of(profile), names, 7, cost or Cost(10**9, 10**8))


def test_a_run_with_a_profile_goes_on_from_a_checkpoint_as_if_there_had_been_no_break():
    def run(checkpoint=None):
        return coordinator(FakeEngine(), devices=40, pace=deployment(40), rounds=8, target=5, checkpoint=checkpoint)

    whole = run()
    expected = [(each.clock, each.costs) for each in whole.rounds()]
    assert any(costs.phases["waiting"] > 0 for _, costs in expected)
    broken = run()
    rounds = broken.rounds()
    for _ in range(3):
        next(rounds)
    again = run(broken.checkpoint())
    assert [(each.clock, each.costs) for each in again.rounds()] == expected[3:]
    assert again.state.weights.tobytes() == whole.state.weights.tobytes()


def test_a_hundred_thousand_devices_are_asked_no_more_often_than_a_thousand():
    asked = []

    class Counting(Deployment):
        def back(self, seed, device, now):
            asked.append(device)
            return super().back(seed, device, now)

    counts = []
    for devices in (1_000, 100_000):
        asked.clear()
        names = [f"device-{number:06d}" for number in range(devices)]
        pace = Counting(profile_of(PHONES), names, 7, Cost(10**6, 10**8))
        for _ in coordinator(FakeEngine(), devices=devices, pace=pace, target=20, rounds=3).rounds():
            pass
        counts.append(len(asked))
    assert counts[1] < 1.5 * counts[0]


def test_where_hardly_anybody_is_there_a_large_fleet_is_not_searched_through_at_once():
    engine = FakeEngine()
    rare = {
        "devices": [{"like": "pi4", "availability": {"kind": "markov", "mean_on_seconds": 9, "mean_off_seconds": 9e5}}]
    }
    run = coordinator(engine, devices=50_000, pace=deployment(50_000, rare, Cost(1, 1)), target=2, rounds=1)
    (only,) = run.rounds()
    assert only.outcomes["done"] == 2


def test_buffered_and_synchronous_schedules_compare_in_simulated_time(monkeypatch):
    monkeypatch.setitem(SCHEDULES._entries, "toy-buffered", Buffered)
    mixed = {
        "devices": [
            {"like": "pi5", "share": 0.8},
            {"like": "pi-zero-2", "share": 0.2, "compute": {"gflops": 0.3}},
        ]
    }

    def seconds(**settings):
        run = coordinator(FakeEngine(), devices=50, pace=deployment(50, mixed), rounds=20, target=5, **settings)
        rounds = list(run.rounds())
        for each in rounds:
            assert sum(each.costs.phases.values()) == pytest.approx(each.costs.seconds)
        assert sum(each.costs.seconds for each in rounds) == pytest.approx(rounds[-1].clock)
        return rounds[-1].clock

    synchronous = seconds()
    buffered = seconds(schedule="toy-buffered", over_selection=2)
    assert buffered < 0.5 * synchronous, "nobody waits for the slow fifth"
