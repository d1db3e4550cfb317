"""What README and docs/getting-started-pi.md say an update gives away, taken out of the bytes that are sent."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from edgefl.model_file import ModelFile
from edgefl.wire.messages import Correction, ExtraVector, Outcome, SectionCodec, Task
from edgefl_device_runtime.tasks import ModelTrainer, Received, perform
from edgefl_device_runtime.training import TrainableModel

MOMENTUM = 0.99  # Keras's default for moving statistics
HALF = tuple(SectionCodec(name, "float16") for name in ("delta", "statistics"))
EXAMPLE = np.random.default_rng(5).normal(size=(1, 20)).astype(np.float32)


def sent_by_a_device_with_one_example(path, **asked):
    return sent_by_a_device(path, {"x": EXAMPLE, "y": np.array([3])}, **asked)


def sent_by_a_device(path, data, **asked):
    """The sections of the recorded message as an eavesdropper reads them, by the parameters' names."""
    trainer = ModelTrainer(TrainableModel(path))
    manifest = trainer.manifest
    task = Task(
        population="p",
        run="r",
        cohort=1,
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
    control = np.zeros(manifest.layout.weight_size, np.float32)
    received = Received(ModelFile.read(path).initial_weights(), {each.name: control for each in task.extra_vectors})
    message = perform(task, trainer, received, data, minimum_examples=1).outcome.encode()
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
    changes, _ = sent_by_a_device_with_one_example(federated_file, codecs=HALF)
    np.testing.assert_allclose(behind_the_first_dense_layer(changes), EXAMPLE[0], atol=2e-3)


def test_a_single_example_is_read_from_the_statistics_of_batch_normalization(batch_norm_first_file):
    changes, outcome = sent_by_a_device_with_one_example(batch_norm_first_file, epochs=3)
    mean = next(change for name, change in changes.items() if name.endswith("moving_mean"))
    np.testing.assert_allclose(mean / (1 - MOMENTUM**outcome.local_steps), EXAMPLE[0], atol=1e-5)


def test_behind_a_relu_one_example_among_several_is_read_exactly(mlp_file):
    random = np.random.default_rng(2)
    x = random.normal(size=(4, 20)).astype(np.float32)
    changes, _ = sent_by_a_device(mlp_file, {"x": x, "y": random.integers(0, 5, 4)})
    kernel = next(change for change in changes.values() if change.shape == (20, 16)).astype(np.float64)
    bias = next(change for change in changes.values() if change.shape == (16,))
    candidates = [kernel[:, unit] / bias[unit] for unit in np.flatnonzero(bias)]
    distances = [min(np.abs(each - row).max() for each in candidates) for row in x]
    assert min(distances) < 1e-4


def test_an_embedding_shows_which_words_are_on_the_device(two_inputs_file):
    words = np.full((40, 3), 4)
    words[17] = [4, 9, 4]  # one that occurs once
    random = np.random.default_rng(3)
    data = {
        "measured": random.normal(size=(40, 4)).astype(np.float32),
        "words": words.astype(np.int32),
        "kind": random.integers(0, 3, 40),
        "size": random.normal(size=(40, 1)).astype(np.float32),
    }
    changes, _ = sent_by_a_device(two_inputs_file, data, epochs=3, codecs=HALF)
    table = next(change for change in changes.values() if change.shape == (10, 4))
    assert set(np.flatnonzero(np.abs(table).sum(1))) == {4, 9}
