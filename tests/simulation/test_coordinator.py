"""A run in simulated time: who is asked when, what is folded, and that nothing is forgotten or kept for ever."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest

from edgefl.errors import RunError
from edgefl.layout import Parameter
from edgefl.wire.messages import Reason
from edgefl_server.aggregation import FoldError, fold, task_seed
from edgefl_server.aggregation.schedules import SCHEDULES
from edgefl_simulation import coordinator as coordinator_module
from extension.toy_schedule import Buffered
from quadratic_trainer import quadratic_manifest
from simulated_runs import ByNumber, FakeEngine, coordinator, device_of


def test_a_round_lasts_as_long_as_its_slowest_device_and_its_weights_are_the_mean():
    engine = FakeEngine()
    run = coordinator(engine, devices=3, rounds=2)
    first, second = run.rounds()
    assert [first.clock, second.clock] == [3.0, 6.0]
    assert (first.fold, first.version, second.version) == (1, 1, 2)
    assert second.over
    assert not second.failed
    assert run.state.weights.tolist() == [4.0] * 4
    assert [task.seed for task in engine.tasks[:3]] == [
        task_seed(7, 1, f"device-{device_of(task):06d}") for task in engine.tasks[:3]
    ]


def test_a_new_cohort_is_drawn_for_each_round_and_the_seed_says_which():
    def asked(seed):
        engine = FakeEngine()
        for _ in coordinator(engine, devices=100, seed=seed, rounds=4).rounds():
            pass
        return [device_of(task) for task in engine.tasks]

    assert len(asked(1)) == 12
    assert asked(1) == asked(1) != asked(2)
    assert all(len({*asked(1)[start : start + 3]}) == 3 for start in range(0, 12, 3))
    assert len(set(asked(1))) > 6


def test_of_more_devices_than_wanted_the_slow_ones_are_not_waited_for_nor_computed():
    engine = FakeEngine()
    run = coordinator(engine, devices=5, target=3, over_selection=5 / 3, deadline_seconds=100, rounds=1)
    (only,) = run.rounds()
    assert only.clock == 3.0
    assert only.outcomes == {"done": 3}
    assert engine.done == 3
    assert run.state.weights.tolist() == [2.0] * 4


def test_a_deadline_closes_a_round_with_what_has_come():
    engine = FakeEngine()
    run = coordinator(engine, devices=5, target=4, minimum=2, deadline_seconds=2.5, over_selection=1, rounds=1)
    (only,) = run.rounds()
    # Whoever was drawn of five, two of the fast ones at least were asked, or the round failed.
    assert only.clock == 2.5 or only.outcomes == {"done": 4}
    assert "deadline" in only.why


def test_a_round_of_which_nothing_will_ever_come_ends_with_an_error():
    run = coordinator(FakeEngine(), devices=4, pace=ByNumber(silent=(0, 1)), lease_seconds=60, rounds=1)
    with pytest.raises(RunError, match="Round 1 has 2 of 3 outcomes, and no further one came for 86,400"):
        next(run.rounds())


def test_the_place_of_a_silent_device_goes_to_another_one():
    engine = FakeEngine()
    run = coordinator(engine, devices=4, target=3, pace=ByNumber(silent=(2,)), lease_seconds=60, rounds=1)
    (only,) = run.rounds()
    assert only.outcomes == {"done": 3}
    assert sorted(device_of(task) for task in engine.tasks) == [0, 1, 3]
    assert only.clock == pytest.approx(4.0) or only.clock == pytest.approx(64.0, abs=4)


def test_a_slow_device_that_is_at_work_keeps_its_place():
    engine = FakeEngine()
    run = coordinator(engine, devices=3, pace=ByNumber(times=100.0), lease_seconds=10, task_seconds=1000, rounds=1)
    (only,) = run.rounds()
    assert only.clock == 300.0
    assert only.outcomes == {"done": 3}


def test_a_device_whose_longest_time_is_over_counts_as_failed():
    engine = FakeEngine()
    run = coordinator(engine, devices=3, pace=ByNumber(times=100.0), lease_seconds=10, task_seconds=150, max_failures=2)
    rounds = list(run.rounds())
    assert rounds[-1].failed
    assert rounds[0].folded is None
    assert engine.jobs == {}


def test_a_run_that_every_device_refuses_fails_and_says_why():
    engine = FakeEngine(refuse={f"{number:06d}": Reason.UNSUPPORTED_TASK for number in range(6)})
    *_, last = coordinator(engine).rounds()
    assert last.over
    assert "3 devices failed or declined" in last.failed
    assert last.errors == ("UNSUPPORTED_TASK",)
    assert last.outcomes == {"declined": 3}


def test_a_device_that_is_busy_is_asked_again_after_a_pause():
    engine = FakeEngine(refuse={"000001": Reason.BUSY})
    run = coordinator(engine, devices=3, rounds=1)
    before = engine.result

    def result(ticket):
        if engine.jobs[ticket].task.task_id.endswith("-003"):
            engine.refuse.clear()
        return before(ticket)

    engine.result = result
    (only,) = run.rounds()
    assert only.outcomes == {"declined": 2, "done": 3}
    assert only.clock > 30


def test_a_device_that_will_always_be_busy_ends_the_simulation_and_its_words_are_told():
    run = coordinator(FakeEngine(refuse={"000001": Reason.BUSY}), devices=3, rounds=1)
    with pytest.raises(RunError, match="2 of 3 outcomes") as caught:
        next(run.rounds())
    assert caught.value.hint == "Devices said: BUSY"


def test_nothing_is_kept_of_rounds_that_are_over():
    engine = FakeEngine()
    run = coordinator(engine, devices=50, target=5, rounds=20)
    for _ in run.rounds():
        assert len(engine.bases) == 1
        assert engine.jobs == {}


def test_a_run_goes_on_from_a_checkpoint_as_if_there_had_been_no_break():
    whole = coordinator(FakeEngine(), devices=20, rounds=6)
    expected = [(each.clock, each.outcomes, each.version) for each in whole.rounds()]
    first = coordinator(FakeEngine(), devices=20, rounds=6)
    rounds = first.rounds()
    for _ in range(4):
        next(rounds)
    again = coordinator(FakeEngine(), devices=20, rounds=6, checkpoint=first.checkpoint())
    assert [(each.clock, each.outcomes, each.version) for each in again.rounds()] == expected[4:]
    assert again.state.weights.tobytes() == whole.state.weights.tobytes()


@pytest.mark.parametrize("schedule", ["synchronous", "buffered"])
def test_a_fold_of_which_no_finite_weights_come_fails_with_the_reason_and_the_weights_stay(schedule):
    class Diverging(FakeEngine):
        def result(self, ticket):
            worked = super().result(ticket)
            if self.jobs[ticket].task.version == 0:
                return worked
            sections = {"delta": np.full(4, 3e38, np.float32)}
            return replace(worked, update=replace(worked.update, sections=sections))

    settings = {"strategy": "fedavg", "server_learning_rate": 10.0, "target": 2, "rounds": 9, "schedule": schedule}
    run = coordinator(Diverging(), **settings)
    rounds = list(run.rounds())
    assert [each.version for each in rounds if each.folded is not None]
    failed = [each for each in rounds if each.folded is None]
    assert {each.why for each in failed} == {"the new weights would not be finite: the run diverges."}
    assert (rounds[-1].over, "would not be finite" in rounds[-1].failed) == (True, True)
    assert np.isfinite(run.state.weights).all()


def test_a_buffered_schedule_folds_what_began_from_older_versions(monkeypatch):
    monkeypatch.setitem(SCHEDULES._entries, "toy-buffered", Buffered)
    engine = FakeEngine()
    run = coordinator(engine, devices=20, target=2, over_selection=3, rounds=12, schedule="toy-buffered")
    rounds = list(run.rounds())
    assert [each.version for each in rounds] == list(range(1, 13))
    assert max(max(each.staleness) for each in rounds) > 0
    assert all(earlier.clock <= later.clock for earlier, later in itertools.pairwise(rounds))
    assert len({task.seed for task in engine.tasks}) == len(engine.tasks)
    checkpoint = run.checkpoint()
    assert (checkpoint.under_way, checkpoint.fold) == (None, 12), "nothing goes on after the last fold"
    assert len(engine.bases) <= 7, "no more versions than tasks are open, and the newest"


def test_a_hundred_thousand_devices_cost_a_round_no_more_than_a_thousand(monkeypatch):
    drawn = []
    monkeypatch.setattr("edgefl_simulation.draws.drawn_order", _counting(drawn))
    for devices in (1_000, 100_000):
        drawn.clear()
        run = coordinator(FakeEngine(), devices=devices, pace=ByNumber(times=1e-5), target=100)
        for _ in run.rounds():
            pass
        assert len(drawn) == 300


def _counting(drawn):
    from edgefl_simulation.draws import drawn_order

    def order(*arguments):
        for each in drawn_order(*arguments):
            drawn.append(each)
            yield each

    return order


LOCAL = quadratic_manifest(Parameter("own", "m/own", (2,), shared=False), algorithms=False)
FILLING = {"schedule": "buffered", "manifest": LOCAL, "devices": 1, "concurrency": 1, "target": 3}


def test_a_device_that_fills_a_buffer_goes_on_from_its_latest_update_before_that_is_folded():
    engine = FakeEngine()
    for _ in coordinator(engine, rounds=2, **FILLING).rounds():
        pass
    assert [task.continues for task in engine.tasks[:6]] == ["", *(task.task_id for task in engine.tasks[:5])]


def test_what_goes_on_from_a_discarded_update_does_not_count(monkeypatch):
    engine, folds = FakeEngine(), []

    def failing(strategy, before, contributions, believed, cohort):
        folds.append([each.task_id for each in contributions])
        if len(folds) == 1:
            raise FoldError("for once")
        return fold(strategy, before, contributions, believed, cohort)

    monkeypatch.setattr(coordinator_module, "fold", failing)
    settings = {**FILLING, "devices": 2, "concurrency": 2, "target": 2}
    first, second, *_ = coordinator(engine, rounds=3, pace=ByNumber(first=2.5), **settings).rounds()
    assert first.why == "for once."
    discarded = {*folds[0]}
    assert any(task.continues in discarded for task in engine.tasks)
    baseless = {task.task_id for task in engine.tasks if task.continues in discarded}
    assert not baseless & {task for fold in folds for task in fold}
    assert "go on from others that do not count" in second.why
