from __future__ import annotations

from dataclasses import replace

import pytest

from edgefl.algorithms import algorithm
from edgefl.wire.messages import Correction, ExtraVector, Task, TaskKind, Weighting
from edgefl_server.aggregation import (
    Assignment,
    Blob,
    Demand,
    RunSettings,
    TaskSource,
    codec_seed,
    codecs_of,
    named_vectors,
    task_for,
    task_id_of,
    task_seed,
)

DEVICE = "d" * 32
CONTROL = ExtraVector("control", "f" * 64, 64)
SOURCE = TaskSource(
    "people", "0123abcd", 5, 7, 8, Blob("a" * 64, 1000), "b" * 64, "c" * 64, Blob("e" * 64, 80), (CONTROL,)
)
CONTINUES = "0123abcd-000006-x-001"
SETTINGS = RunSettings(rounds=9, target=1, seed=5, epochs=2, max_steps=3, learning_rate=0.5, batch_size=4)


def test_a_task_says_what_its_cohort_starts_from_what_the_run_wants_and_what_the_strategy_asks() -> None:
    demand = Demand(algorithm("scaffold"), mu=0.25)
    task = task_for(SOURCE, SETTINGS, demand, Assignment(DEVICE, 2, 0.0, 60.0, 30.0), 41.0, CONTINUES)
    assert (task.population, task.run, task.task_id) == ("people", "0123abcd", f"0123abcd-000007-{DEVICE}-002")
    assert (task.version, task.cohort, task.fold, task.schedule) == (5, 7, 8, "synchronous")
    assert (task.weighting, task.minimum_cohort) == (Weighting.UNIFORM, 1)
    assert [each.section for each in task.codecs] == ["delta", "statistics", "control"]
    assert (task.model_hash, task.model_bytes) == ("a" * 64, 1000)
    assert (task.graph_hash, task.layout_hash) == ("b" * 64, "c" * 64)
    assert (task.base_weights_hash, task.base_weights_bytes, task.extra_vectors) == ("e" * 64, 80, SOURCE.vectors)
    assert (task.epochs, task.max_steps, task.learning_rate, task.batch_size) == (2, 3, 0.5, 4)
    assert (task.kind, task.mu, task.correction) == (TaskKind.TRAIN, 0.25, Correction.SCAFFOLD)
    assert (task.seed, task.continues, task.deadline_seconds) == (
        task_seed(5, 7, DEVICE),
        "0123abcd-000006-x-001",
        41.0,
    )
    assert Task.decode(task.encode()) == task


def test_a_task_that_is_done_without_a_wire_has_the_numbers_that_a_device_reads() -> None:
    settings = replace(SETTINGS, learning_rate=0.1, clip_norm=0.3, local_test=0.7)
    task = task_for(SOURCE, settings, Demand(algorithm("feddyn"), mu=0.1), Assignment(DEVICE, 1, 0.0, 9.9, 9.9), 9.9)
    assert Task.decode(task.encode()) == task
    assert [round(each, 6) for each in (task.learning_rate, task.clip_norm, task.mu)] == [0.1, 0.3, 0.1]


@pytest.mark.parametrize("codec", ["rand-0.25+drive", "stc", "int8"])
def test_the_runs_codec_is_for_updates_and_what_it_does_not_suit_is_float32(codec: str) -> None:
    settings, demand = replace(SETTINGS, codec=codec), Demand(algorithm("scaffold" if codec != "stc" else ""))
    task = task_for(SOURCE, settings, demand, Assignment(DEVICE, 2, 0.0, 60.0, 30.0, turn=1), 41.0)
    others = {"control": "float32"} if codec != "stc" else {}
    assert {each.section: each.codec for each in task.codecs} == {"delta": codec, "statistics": "float32", **others}
    assert [each.seed for each in task.codecs] == [codec_seed(task.seed, each.section) for each in task.codecs]
    assert codecs_of(settings, demand, 7, Assignment(DEVICE, 9, 3.0, 7.0, 5.0, turn=1)) == task.codecs


def test_a_task_names_the_newest_of_many_outstanding_ones_and_the_folded_one() -> None:
    many = [f"t{number}" for number in range(20, 0, -1)]
    task = task_for(SOURCE, SETTINGS, Demand(), Assignment(DEVICE, 1, 0.0, 60.0, 30.0), 41.0, "t21", many)
    assert (len(task.outstanding), task.outstanding[:2], task.outstanding[-1]) == (8, ("t20", "t19"), "t1")
    assert Task.decode(task.encode()) == task


@pytest.mark.parametrize("left", [0.2, -3.0])
def test_a_task_has_always_a_second_left(left: float) -> None:
    assert task_for(SOURCE, SETTINGS, Demand(), Assignment(DEVICE, 1, 0.0, 1.0, 1.0), left).deadline_seconds == 1.0


def test_task_ids_sort_by_device_inside_a_cohort() -> None:
    ids = [task_id_of("r", cohort, Assignment(device, 1, 0, 1, 1)) for cohort in (1, 12) for device in ("a", "b")]
    assert ids == sorted(ids)


def test_tasks_name_the_slots_that_the_strategy_wants_fetched_and_no_others() -> None:
    demand = Demand(algorithm("scaffold"))
    assert named_vectors(demand, {"control": "f" * 64, "own": "e" * 64}) == {"control": "f" * 64}
    assert named_vectors(demand, {}) == {}
