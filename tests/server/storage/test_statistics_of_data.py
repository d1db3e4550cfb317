"""Statistics of devices' data, through the server's state without HTTP."""

from __future__ import annotations

import json

import numpy as np
import pytest

from edgefl.errors import OutcomeRefusedError
from edgefl.summaries import ArraySummary, Summary
from edgefl.wire.messages import Outcome, Section, TaskKind
from edgefl_server.storage import run_status


def summary_of(seed: int, rows: int) -> tuple[Summary, dict[str, np.ndarray]]:
    random = np.random.default_rng(seed)
    data = {"x": random.normal(seed, 2, (rows, 3)).astype(np.float32), "y": random.integers(0, 4, rows)}
    arrays = {name: ArraySummary.of([each], each.shape[1:], whole=name == "y") for name, each in data.items()}
    return Summary(rows, arrays), data


def answer(task, summary: Summary, **changes) -> Outcome:
    said = {
        "task_id": task.task_id,
        "base_weights_hash": task.base_weights_hash,
        "layout_hash": task.layout_hash,
        "num_examples": summary.rows,
        "sections": (Section.of_bytes("summary", summary.encode()),),
    }
    return Outcome(**{**said, **changes})


def test_the_statistics_are_those_of_the_pooled_data_and_move_no_weights(fleet) -> None:
    devices = fleet.add_devices(6)
    run = fleet.create_run(kind="statistics", rounds=1, target=6)
    pooled: dict[str, list[np.ndarray]] = {"x": [], "y": []}
    for seed, device in enumerate(devices):
        task = fleet.task(device)
        assert (task.kind, task.codecs, task.continues) == (TaskKind.STATISTICS, (), "")
        summary, data = summary_of(seed, 5 + 100 * seed)
        fleet.accept(device, answer(task, summary))
        for name, each in data.items():
            pooled[name].append(each)
    fleet.fold()
    status = run_status(fleet.state, run)
    assert (status["state"], status["weights_hash"]) == ("done", status["initial_weights_hash"])
    found = status["history"][0]["findings"]["statistics"]
    x, y = np.concatenate(pooled["x"]).astype(np.float64), np.concatenate(pooled["y"])
    assert (found["rows"], found["devices"]) == (len(x), 6)
    np.testing.assert_allclose(found["arrays"]["x"]["mean"], x.mean(0), rtol=1e-12)
    np.testing.assert_allclose(found["arrays"]["x"]["variance"], x.var(0), rtol=1e-12)
    np.testing.assert_array_equal(found["arrays"]["x"]["low"], x.min(0))
    np.testing.assert_allclose(found["arrays"]["x"]["quantiles"]["0.75"], np.quantile(x, 0.75, axis=0), rtol=0.05)
    assert found["arrays"]["y"]["values"] == [[int(v), int((y == v).sum())] for v in np.unique(y)]
    json.dumps(status)


def test_nothing_is_shown_of_too_few_devices(fleet) -> None:
    devices = fleet.add_devices(6)
    run = fleet.create_run(kind="statistics", rounds=1, target=6, minimum=5, deadline_seconds=60)
    for seed, device in enumerate(devices[:4]):
        fleet.accept(device, answer(fleet.task(device), summary_of(seed, 5)[0]))
    fleet.clock.now += 61
    from edgefl_server.storage import close_due_rounds

    close_due_rounds(fleet.state)
    fleet.fold()
    status = run_status(fleet.state, run)
    assert (status["state"], status["history"][0]["findings"]) == ("failed", {})
    assert "4 of at least 5 outcomes" in status["why"]


def other_shape(task):
    arrays = {name: ArraySummary.of([np.ones((4, 2))], (2,), whole=False) for name in ("x", "y")}
    return answer(task, Summary(4, arrays))


@pytest.mark.parametrize(
    ("make", "code"),
    [
        (other_shape, "malformed"),
        (lambda task: answer(task, summary_of(0, 4)[0], num_examples=5), "bad_num_examples"),
        (lambda task: answer(task, summary_of(0, 4)[0], sections=()), "malformed"),
        (lambda task: answer(task, summary_of(0, 4)[0], sections=(Section.of_bytes("summary", b"{}"),)), "malformed"),
        (
            lambda task: answer(
                task, summary_of(0, 4)[0], sections=(Section.of("summary", np.ones(3, np.float32), "float32"),)
            ),
            "malformed",
        ),
    ],
)
def test_what_is_no_summary_of_the_models_arrays_is_refused(fleet, make, code: str) -> None:
    device = fleet.add_devices(5)[0]
    fleet.create_run(kind="statistics", rounds=1, target=5)
    task = fleet.task(device)
    with pytest.raises(OutcomeRefusedError) as refused:
        fleet.accept(device, make(task))
    assert refused.value.reason == code
