"""A buffer, selections, courses and patience in simulated time: what a server does, without one."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest

from edgefl.errors import InvalidSettingError
from edgefl.wire.messages import MetricState, Reason
from edgefl_server.aggregation import RunSettings
from edgefl_simulation.draws import uniform
from edgefl_simulation.fleet import device_names
from edgefl_simulation.history import row_of
from edgefl_simulation.leading import check_engine
from edgefl_simulation.pace import Course, Steady
from edgefl_simulation.under_way import UnderWay
from simulated_runs import MANIFEST, START, ByNumber, FakeEngine, coordinator, device_of


def buffered(engine, **settings):
    return coordinator(engine, **{"devices": 8, "target": 2, "schedule": "buffered", "rounds": 12, **settings})


def test_a_buffer_waits_for_nobody_and_merges_what_began_from_older_versions():
    engine = FakeEngine()
    run = buffered(engine, concurrency=4, strategy="fedbuff")
    rounds = list(run.rounds())
    synchronous = list(coordinator(FakeEngine(), devices=8, target=2, rounds=12).rounds())
    assert rounds[-1].clock < synchronous[-1].clock
    assert max(max(each.staleness) for each in rounds) > 1
    assert [len(each.staleness) for each in rounds] == [2] * 12
    assert row_of(rounds[0], MANIFEST, None, 0.0)["staleness"] == [0, 0]
    assert not any(each.staleness for each in coordinator(FakeEngine(), rounds=3).rounds())
    assert rounds[-1].folded.diagnostics["staleness_weight"] < 1
    assert len({task.seed for task in engine.tasks}) == len(engine.tasks)
    assert len(engine.bases) <= 5, "no more versions than tasks are open, and the newest"


def test_fedasync_without_a_discount_takes_each_model_as_it_comes():
    trained = {}

    class Remembering(FakeEngine):
        def result(self, ticket):
            worked, job = super().result(ticket), self.jobs[ticket]
            trained[job.task.task_id] = self.bases[job.base] + worked.update.delta
            return worked

    run = buffered(Remembering(), target=1, concurrency=3, strategy="fedasync", mixing=1.0, staleness="constant")
    found = []
    for each in run.rounds():
        found.append(run.state.weights.copy())
        assert any(np.array_equal(found[-1], model) for model in trained.values())
        stale = each.staleness
    assert len(found) == 12
    assert stale is not None


@pytest.mark.parametrize("rule", ["median", "mean"])
def test_bad_devices_that_are_fast_are_no_majority_of_a_fold_under_a_rule_that_counts(rule):
    bad = 2

    class Bad(FakeEngine):
        def result(self, ticket):
            worked = super().result(ticket)
            if device_of(self.jobs[ticket].task) >= bad:
                return worked
            return replace(worked, update=replace(worked.update, sections={"delta": np.full(4, -1000, np.float32)}))

    class Fast(ByNumber):
        def course(self, work):
            seconds = 0.01 if work.device < bad else 10.0 + work.device
            return Course(work.now, work.now, work.now + seconds)

    run = buffered(Bad(), pace=Fast(), target=5, staleness="constant", rule=rule)
    assert len(list(run.rounds())) == 12
    assert (run.state.weights > 0).all() == (rule == "median")


def test_what_is_too_many_versions_behind_is_left_out_and_counted():
    run = buffered(FakeEngine(), pace=ByNumber(times=3.0), target=1, concurrency=8, max_staleness=2, rounds=20)
    rounds = list(run.rounds())
    assert sum(each.outcomes.get("stale", 0) for each in rounds) > 0
    assert max(max(each.staleness) for each in rounds) <= 2


def test_the_same_seed_gives_the_same_buffered_run():
    def weights(seed):
        run = buffered(FakeEngine(), seed=seed)
        return [(each.clock, run.state.weights.tobytes()) for each in run.rounds()]

    assert weights(3) == weights(3) != weights(4)


class Slow(ByNumber):
    """Device 0 takes longer than a task may, and a third of the others' tasks come to nothing."""

    def course(self, work):
        lost = uniform(work.seed, "lost", work.task_id) < 0.3
        seconds = 500.0 if work.device == 0 else 3.0 + work.device
        return Course(work.now, work.now + 1, work.now + seconds, 0.05, gone=work.now + 2 if lost else math.inf)


@pytest.mark.parametrize(
    ("engine", "pace", "settings"),
    [
        ({}, ByNumber(), {"concurrency": 5, "strategy": "fedbuff"}),
        ({}, Slow(), {"lease_seconds": 20, "task_seconds": 60, "max_failures": 50, "down_codec": "drive"}),
        ({"refuse": {device_names(8)[2]: Reason.BUSY}}, Slow(), {"lease_seconds": 9, "max_staleness": 1}),
        ({}, ByNumber(silent=(1,)), {"target": 3, "rule": "median", "lease_seconds": 5, "max_failures": 50}),
        ({}, ByNumber(), {"target": 1, "concurrency": 1, "strategy": "fedasync"}),
    ],
    ids=["FedBuff", "lost tasks", "busy devices", "a rule", "nothing open"],
)
def test_a_buffered_run_goes_on_between_any_two_folds_as_if_there_had_been_no_break(engine, pace, settings):
    def told(each):
        return (each.fold, each.version, each.clock, each.outcomes, each.staleness, each.errors, each.why, each.costs)

    def run(**more):
        return buffered(FakeEngine(**engine), pace=pace, **{"rounds": 10, **settings, **more})

    whole = run()
    expected = [told(each) for each in whole.rounds()]
    assert len(expected) == 10
    for breaks in range(1, 10):
        broken = run()
        for _ in zip(range(breaks), broken.rounds(), strict=False):
            checkpoint = broken.checkpoint()
        open_ones = checkpoint.under_way
        plain = json.loads(json.dumps(open_ones.to_json()))
        kept = UnderWay.from_json(plain, {**open_ones.versions, checkpoint.version: checkpoint.state})
        assert kept.open == open_ones.open
        again = run(checkpoint=replace(checkpoint, under_way=kept))
        assert [told(each) for each in again.rounds()] == expected[breaks:]
        assert again.state.weights.tobytes() == whole.state.weights.tobytes()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"taken": "many"}, "invalid literal"),
        ({"coming": [[1.0, 77]]}, "of a task that is not there"),
        ({"open": []}, "not there|not those of its devices"),
        ({"standing": {"state": "selecting", "open": 3}}, "not those of its devices"),
        ({"standing": {"state": "asleep"}}, "asleep"),
    ],
)
def test_what_is_damaged_of_what_was_under_way_is_named(change, message):
    run = buffered(FakeEngine(), concurrency=5)
    next(run.rounds())
    open_ones = run.checkpoint().under_way
    with pytest.raises(ValueError, match=message):
        UnderWay.from_json({**open_ones.to_json(), **change}, open_ones.versions)
    with pytest.raises(ValueError, match="lacks version 0, from which a task began"):
        UnderWay.from_json(open_ones.to_json(), {1: START})


def test_the_least_recent_are_asked_before_anybody_has_a_second_turn_also_after_a_break():
    def asked(breaks):
        engine = FakeEngine()
        settings = {"devices": 9, "target": 3, "rounds": 6, "selection": "least-recent"}
        run = coordinator(engine, **settings)
        for number, _ in enumerate(run.rounds(), 1):
            if number == breaks:
                rest = coordinator(engine, **settings, checkpoint=run.checkpoint())
                assert len(list(rest.rounds())) == 6 - breaks
                break
        return [device_of(task) for task in engine.tasks]

    whole = asked(0)
    assert sorted(whole[:9]) == sorted(whole[9:]) == list(range(9))
    assert asked(2) == whole


def test_a_drawn_device_that_is_away_delays_a_round_by_no_more_than_a_window():
    class Away(ByNumber):
        def back(self, seed, device, now):
            return now if device >= 6 else 1e6

    run = coordinator(
        FakeEngine(), devices=12, pace=Away(), target=2, rounds=3, selection="random", selection_window=30
    )
    rounds = list(run.rounds())
    assert [each.outcomes["done"] for each in rounds] == [2] * 3
    assert rounds[-1].clock <= 3 * (3 * 30 + 12)


def test_a_run_ends_when_its_patience_does():
    class Worse(FakeEngine):
        def result(self, ticket):
            worked = super().result(ticket)
            loss = float(self.jobs[ticket].task.version)
            states = (MetricState("loss_sum", (8 * loss,)), MetricState("rows", (8.0,)))
            return replace(worked, update=replace(worked.update, metrics=states))

    rounds = list(coordinator(Worse(), rounds=50, patience=3).rounds())
    assert len(rounds) == 4
    assert rounds[-1].over
    assert not rounds[-1].failed
    assert "loss has not got better than 0 for 3 evaluations" in rounds[-1].enough


def test_tasks_say_the_rate_of_their_version():
    engine = FakeEngine()
    settings = {"learning_rate": 0.5, "learning_rate_course": "step", "learning_rate_every": 1}
    for _ in coordinator(engine, rounds=3, **settings).rounds():
        pass
    assert [task.learning_rate for task in engine.tasks] == [0.5] * 3 + [0.25] * 3 + [0.125] * 3


def test_the_engine_http_refuses_what_it_cannot_do():
    for settings, message in (({"schedule": "buffered"}, "synchronous rounds only"), ({"selection": "random"}, "sele")):
        with pytest.raises(InvalidSettingError, match=message):
            check_engine("http", "", Steady(), None, RunSettings(rounds=1, target=1, **settings))
