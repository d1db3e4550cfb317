"""What README and docs/getting-started-pi.md say an update gives away, taken out of the bytes that are sent."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from edgefl.model_file import ModelFile
from edgefl.wire.messages import Correction, ExtraVector, Outcome, Task
from edgefl_device_runtime.agent.examples import arrange
from edgefl_device_runtime.agent.local_training import Given, perform
from edgefl_device_runtime.agent.trainer import InterpreterTrainer

MOMENTUM = 0.99  # Keras's default for moving statistics
EXAMPLE = np.random.default_rng(5).normal(size=(1, 20)).astype(np.float32)


def sent_by_a_device_with_one_example(path, **asked):
    """The sections of the recorded message as an eavesdropper reads them, by the parameters' names."""
    trainer = InterpreterTrainer(path)
    manifest = trainer.manifest
    control = np.zeros(manifest.layout.weight_size, np.float32) if asked.get("correction") else None
    task = Task(
        population="p",
        run="r",
        round=1,
        task_id="t",
        model_hash="0" * 64,
        graph_hash=manifest.graph_hash,
        layout_hash=manifest.layout_hash,
        base_weights_hash="0" * 64,
        seed=7,
        continues="",
        **asked,
    )
    if task.correction is Correction.SCAFFOLD:
        task = replace(task, extra_vectors=(ExtraVector("control", "0" * 64),))
    examples = arrange({"x": EXAMPLE, "y": np.array([3])}, manifest)
    given = Given(ModelFile.read(path).initial_weights(), control)
    message = perform(task, trainer, given, examples, lambda: None).outcome.encode()
    outcome = Outcome.decode(message)
    vectors = [outcome.section(name) for name in ("delta", "statistics")]
    flat = np.concatenate([section.vector() for section in vectors if section is not None])
    return manifest.layout.views(flat), outcome


def behind_the_first_dense_layer(changes):
    """Each column of the kernel's change is the example times the change of that column's bias."""
    kernel = next(change for change in changes.values() if change.ndim == 2 and change.shape[0] == EXAMPLE.size)
    bias = next(change for change in changes.values() if change.shape == kernel.shape[1:])
    column = int(np.abs(bias).argmax())
    return kernel[:, column].astype(np.float64) / float(bias[column])


@pytest.mark.parametrize(
    "asked",
    [
        {},
        {"epochs": 20},
        {"clip_norm": 1e-3},
        {"mu": 0.1},
        {"correction": Correction.SCAFFOLD},
        {"correction": Correction.FEDDYN, "mu": 0.1},
    ],
    ids=["fedavg", "twenty epochs", "clipped", "fedprox", "scaffold", "feddyn"],
)
def test_a_single_example_behind_a_dense_layer_is_read_from_the_delta_whatever_the_algorithm(federated_file, asked):
    changes, _ = sent_by_a_device_with_one_example(federated_file, **asked)
    np.testing.assert_allclose(behind_the_first_dense_layer(changes), EXAMPLE[0], atol=2e-6)


def test_half_the_bits_hide_little_of_it(federated_file):
    changes, _ = sent_by_a_device_with_one_example(federated_file, codec="float16")
    np.testing.assert_allclose(behind_the_first_dense_layer(changes), EXAMPLE[0], atol=2e-3)


def test_a_single_example_is_read_from_the_statistics_of_batch_normalization(batch_norm_first_file):
    changes, outcome = sent_by_a_device_with_one_example(batch_norm_first_file, epochs=3)
    mean = next(change for name, change in changes.items() if name.endswith("moving_mean"))
    np.testing.assert_allclose(mean / (1 - MOMENTUM**outcome.local_steps), EXAMPLE[0], atol=1e-5)
