"""Tasks on a real interpreter."""

from __future__ import annotations

import re

import numpy as np
import pytest

from edgefl.hashing import weights_hash
from edgefl.model_file import ModelFile
from edgefl.version import __version__
from edgefl.wire.messages import OutcomeStatus, Reason, Task, TaskKind
from edgefl_device_runtime.tasks import ModelTrainer, Received
from edgefl_device_runtime.tasks import perform as perform_task
from edgefl_device_runtime.training import TrainableModel


def load(path, **settings):
    return ModelTrainer(TrainableModel(path, **settings))


def perform(task, trainer, weights, data):
    result = perform_task(task, trainer, Received(weights), data)
    assert result.error is None
    return result.outcome


def data(rows=19, seed=0):
    random = np.random.default_rng(seed)
    return {"x": random.normal(size=(rows, 20)).astype(np.float32), "y": random.integers(0, 5, rows)}


def make_task(path, **changes):
    file = ModelFile.read(path)
    weights = file.initial_weights()
    fields = {
        "population": "p",
        "run": "r",
        "cohort": 1,
        "task_id": "t",
        "model_hash": "",
        "graph_hash": file.manifest.graph_hash,
        "layout_hash": file.manifest.layout_hash,
        "base_weights_hash": weights_hash(weights),
        "seed": 2**63 + 5,
        "epochs": 2,
        **changes,
    }
    return Task(**fields), weights


@pytest.mark.parametrize("name", ["mlp_adam", "dropout", "batch_norm"])
def test_the_outcome_does_not_depend_on_what_was_trained_before(request, runtime, name):
    path = request.getfixturevalue(f"{name}_file")
    task, weights = make_task(path)
    used, fresh = (load(path, runtime=runtime) for _ in range(2))
    other, _ = make_task(path, seed=1, epochs=3)
    perform(other, used, weights + np.float32(0.01), data(30, 1))
    examples = data()
    first = perform(task, used, weights, examples)
    second = perform(task, fresh, weights, examples)
    assert first.encode() == second.encode()


def test_the_seed_decides_about_dropout(dropout_file):
    trainer = load(dropout_file)
    examples = data()
    deltas = []
    for seed in (1, 2):
        task, weights = make_task(dropout_file, seed=seed)
        deltas.append(perform(task, trainer, weights, examples).section("delta").vector())
    assert not np.array_equal(*deltas)


def test_the_states_are_those_of_the_last_epoch_and_of_all_rows(mlp_file):
    trainer = load(mlp_file)
    task, weights = make_task(mlp_file)
    outcome = perform(task, trainer, weights, data())
    states = {state.name: state.values for state in outcome.metrics}
    assert states["rows"] == (19.0,)
    assert states["accuracy/count"] == (19.0,)
    assert 0 < states["loss_sum"][0] / 19 < 10
    assert (outcome.num_examples, outcome.local_steps) == (19, 6)
    assert re.fullmatch(f"edgefl/{re.escape(__version__)} [a-z-]+/[0-9.]+", outcome.trainer)


def test_limits_of_the_task_are_kept(mlp_file):
    trainer = load(mlp_file)
    task, weights = make_task(mlp_file, max_steps=2, batch_size=4, epochs=9)
    outcome = perform(task, trainer, weights, data())
    assert (outcome.num_examples, outcome.local_steps) == (8, 2)


@pytest.mark.filterwarnings("ignore:The last")
def test_what_a_device_weighs_does_not_change_from_round_to_round(batch_norm_file, runtime):
    trainer = load(batch_norm_file, runtime=runtime)
    examples = data(16 + 3)
    for seed in range(4):
        task, weights = make_task(batch_norm_file, seed=seed)
        assert perform(task, trainer, weights, examples).num_examples == 19


def test_the_tasks_learning_rate_is_used(mlp_file):
    trainer = load(mlp_file)
    task, weights = make_task(mlp_file, learning_rate=0.0)
    outcome = perform(task, trainer, weights, data())
    assert not outcome.section("delta").vector().any()


def test_evaluation_changes_nothing_and_counts_every_row(mlp_file):
    trainer = load(mlp_file)
    task, weights = make_task(mlp_file, kind=TaskKind.EVALUATE)
    outcome = perform(task, trainer, weights, data())
    assert {state.name: state.values for state in outcome.metrics}["rows"] == (19.0,)
    np.testing.assert_array_equal(trainer.weights, weights)


def test_labels_that_the_model_does_not_have_are_named(mlp_file):
    trainer = load(mlp_file)
    task, weights = make_task(mlp_file)
    wrong = {**data(), "y": np.full(19, 5)}
    result = perform_task(task, trainer, Received(weights), wrong)
    assert (result.outcome.status, result.outcome.reason) == (OutcomeStatus.FAILED, Reason.DATA_MISMATCH)
    assert "from 0 to 4, got 5" in str(result.error)


def test_auto_measures_the_threads_of_a_model_once(mlp_file, runtime, tmp_path, monkeypatch):
    asked = []

    def measure(source, manifest, runtime, tried):
        asked.append(tuple(tried))
        return 3, {1: 0.2, 3: 0.1}

    monkeypatch.setattr("edgefl_device_runtime.training.threads.time_threads", measure)
    monkeypatch.setattr("edgefl_device_runtime.training.threads.physical_cores", lambda: 4)
    task, weights = make_task(mlp_file)
    file = tmp_path / "threads.json"
    for _ in range(2):
        trainer = load(mlp_file, num_threads="auto", runtime=runtime, threads_file=file)
        assert trainer.num_threads == 3
        perform(task, trainer, weights, data())
    assert asked == [(1, 2, 3, 4)]
