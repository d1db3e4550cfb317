"""Tasks on a real interpreter."""

from __future__ import annotations

import re

import numpy as np
import pytest

from edgefl.errors import DataError
from edgefl.hashing import weights_hash
from edgefl.model_file import ModelFile
from edgefl.version import __version__
from edgefl.wire.messages import Task, TaskKind
from edgefl_device_runtime.agent.examples import arrange
from edgefl_device_runtime.agent.local_training import Given
from edgefl_device_runtime.agent.local_training import perform as perform_task
from edgefl_device_runtime.agent.state import StateFolder
from edgefl_device_runtime.agent.trainer import InterpreterTrainer


def perform(task, trainer, weights, examples, progress):
    return perform_task(task, trainer, Given(weights), examples, progress).outcome


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
    used, fresh = (InterpreterTrainer(path, runtime=runtime) for _ in range(2))
    other, _ = make_task(path, seed=1, epochs=3)
    perform(other, used, weights + np.float32(0.01), arrange(data(30, 1), used.manifest), lambda: None)
    examples = arrange(data(), used.manifest)
    first = perform(task, used, weights, examples, lambda: None)
    second = perform(task, fresh, weights, examples, lambda: None)
    assert first.encode() == second.encode()


def test_the_seed_decides_about_dropout(dropout_file):
    trainer = InterpreterTrainer(dropout_file)
    examples = arrange(data(), trainer.manifest)
    deltas = []
    for seed in (1, 2):
        task, weights = make_task(dropout_file, seed=seed)
        deltas.append(perform(task, trainer, weights, examples, lambda: None).section("delta").vector())
    assert not np.array_equal(*deltas)


def test_the_states_are_those_of_the_last_epoch_and_of_all_rows(mlp_file):
    trainer = InterpreterTrainer(mlp_file)
    task, weights = make_task(mlp_file)
    outcome = perform(task, trainer, weights, arrange(data(), trainer.manifest), lambda: None)
    states = {state.name: state.values for state in outcome.metrics}
    assert states["rows"] == (19.0,)
    assert states["accuracy/count"] == (19.0,)
    assert 0 < states["loss_sum"][0] / 19 < 10
    assert (outcome.num_examples, outcome.local_steps) == (19, 6)
    assert re.fullmatch(f"edgefl/{re.escape(__version__)} [a-z-]+/[0-9.]+", outcome.trainer)


def test_limits_of_the_task_are_kept(mlp_file):
    trainer = InterpreterTrainer(mlp_file)
    task, weights = make_task(mlp_file, max_steps=2, batch_size=4, epochs=9)
    outcome = perform(task, trainer, weights, arrange(data(), trainer.manifest), lambda: None)
    assert (outcome.num_examples, outcome.local_steps) == (8, 2)


@pytest.mark.filterwarnings("ignore:The last")
def test_what_a_device_weighs_does_not_change_from_round_to_round(batch_norm_file, runtime):
    trainer = InterpreterTrainer(batch_norm_file, runtime=runtime)
    examples = arrange(data(16 + 3), trainer.manifest)
    for seed in range(4):
        task, weights = make_task(batch_norm_file, seed=seed)
        assert perform(task, trainer, weights, examples, lambda: None).num_examples == 19


def test_the_tasks_learning_rate_is_used(mlp_file):
    trainer = InterpreterTrainer(mlp_file)
    task, weights = make_task(mlp_file, learning_rate=0.0)
    outcome = perform(task, trainer, weights, arrange(data(), trainer.manifest), lambda: None)
    assert not outcome.section("delta").vector().any()


def test_evaluation_changes_nothing_and_counts_every_row(mlp_file):
    trainer = InterpreterTrainer(mlp_file)
    task, weights = make_task(mlp_file, kind=TaskKind.EVALUATE)
    outcome = perform(task, trainer, weights, arrange(data(), trainer.manifest), lambda: None)
    assert {state.name: state.values for state in outcome.metrics}["rows"] == (19.0,)
    np.testing.assert_array_equal(trainer.weights, weights)


def test_labels_that_the_model_does_not_have_are_named(mlp_file):
    trainer = InterpreterTrainer(mlp_file)
    task, weights = make_task(mlp_file)
    wrong = {**data(), "y": np.full(19, 5)}
    with pytest.raises(DataError, match="from 0 to 4, got 5"):
        perform(task, trainer, weights, arrange(wrong, trainer.manifest), lambda: None)


def test_auto_measures_the_threads_of_a_model_once(mlp_file, runtime, tmp_path, monkeypatch):
    asked = []

    def measure(source, manifest, runtime, tried):
        asked.append(tuple(tried))
        return 3, {1: 0.2, 3: 0.1}

    monkeypatch.setattr("edgefl_device_runtime.training.threads.time_threads", measure)
    monkeypatch.setattr("edgefl_device_runtime.training.threads.physical_cores", lambda: 4)
    task, weights = make_task(mlp_file)
    file = StateFolder(tmp_path).threads
    for _ in range(2):
        trainer = InterpreterTrainer(mlp_file, num_threads="auto", runtime=runtime, threads_file=file)
        assert trainer.num_threads == 3
        perform(task, trainer, weights, arrange(data(), trainer.manifest), lambda: None)
    assert asked == [(1, 2, 3, 4)]
