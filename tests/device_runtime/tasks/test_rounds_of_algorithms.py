"""The devices' side of FedProx, SCAFFOLD, FedDyn and FedSGD over several rounds, against float64 transcriptions."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from edgefl.wire.messages import Correction, ExtraVector, OutcomeStatus, Task, TaskKind
from edgefl_device_runtime.tasks import ModelTrainer, Received, RunMemory, perform
from edgefl_device_runtime.training import TrainableModel
from federated_numpy import SIZE, LocalData, feddyn, fedprox, gradient, scaffold

ROUNDS, EPOCHS = 4, 2
CLOSE = {"rtol": 0, "atol": 1e-5}
SCAFFOLD = {"correction": Correction.SCAFFOLD, "extra_vectors": (ExtraVector("control", "c" * 64),)}


def local_data(round_number: int) -> LocalData:
    """The same rows in every round, visited in another order."""
    random = np.random.default_rng(8)
    x = random.normal(size=(29, 20)).astype(np.float32)
    return LocalData(x, np.argmax(x[:, :5], axis=1).astype(np.int32), 100 + round_number, EPOCHS)


class Device:
    """A device that takes part in round after round, and the server's part played by the test."""

    def __init__(self, file, runtime):
        self.trainer = ModelTrainer(TrainableModel(file, runtime=runtime))
        self.manifest = self.trainer.manifest
        self.memory = RunMemory()
        self.weights = self.trainer.weights

    def work(self, number, control=None, **asked):
        data = local_data(number)
        task = Task(
            population="p",
            run="r",
            cohort=number,
            task_id=f"t{number}",
            model_hash="",
            graph_hash=self.manifest.graph_hash,
            layout_hash=self.manifest.layout_hash,
            base_weights_hash="0" * 64,
            seed=data.seed,
            epochs=data.epochs,
            continues="before",
        )
        task = replace(task, **asked)
        received = Received(self.weights, {} if control is None else {"control": control})
        result = perform(task, self.trainer, received, {"x": data.x, "y": data.y}, {"before": self.memory})
        assert result.outcome.status == OutcomeStatus.DONE
        self.memory = result.remembered.get(task.task_id, RunMemory())
        return {section.name: section.vector() for section in result.outcome.sections}, data


@pytest.fixture
def device(federated_file, runtime):
    return Device(federated_file, runtime)


def moves():
    """What other devices do to the global vectors from round to round."""
    return 0.05 * np.random.default_rng(6).normal(size=(ROUNDS + 1, 2, SIZE))


def test_fedprox(device):
    for number in range(1, ROUNDS + 1):
        received = device.weights.astype(np.float64)
        sent, data = device.work(number, mu=0.5)
        assert set(sent) == {"delta"}
        np.testing.assert_allclose(sent["delta"], fedprox(received, data, 0.5) - received, **CLOSE)
        device.weights = device.weights + sent["delta"]
    assert device.memory.vectors == ()


def test_scaffold(device):
    c, own = np.zeros(SIZE), np.zeros(SIZE)
    for number in range(1, ROUNDS + 1):
        received, control = device.weights.astype(np.float64), c.astype(np.float32)
        sent, data = device.work(number, control, **SCAFFOLD)
        trained, after = scaffold(received, control.astype(np.float64), own, data)
        np.testing.assert_allclose(sent["delta"], trained - received, **CLOSE)
        np.testing.assert_allclose(sent["control"], after - own, **CLOSE)
        np.testing.assert_allclose(device.memory.control, after, **CLOSE)
        own = after
        others = moves()[number]
        c = c + 0.5 * sent["control"] + others[0]
        device.weights = (device.weights + sent["delta"] + others[1]).astype(np.float32)
    assert np.abs(own).max() > 0.1


def test_feddyn(device):
    alpha, own = 0.5, np.zeros(SIZE)
    for number in range(1, ROUNDS + 1):
        received = device.weights.astype(np.float64)
        sent, data = device.work(number, correction=Correction.FEDDYN, mu=alpha)
        trained, own = feddyn(received, own, data, alpha)
        assert set(sent) == {"delta"}
        np.testing.assert_allclose(sent["delta"], trained - received, **CLOSE)
        np.testing.assert_allclose(device.memory.control, own, **CLOSE)
        device.weights = (device.weights + sent["delta"] + moves()[number][0]).astype(np.float32)
    assert np.abs(own).max() > 0.1


def test_fedsgd(device):
    for number in range(1, ROUNDS + 1):
        sent, data = device.work(number, kind=TaskKind.GRADIENT)
        expected = gradient(device.weights.astype(np.float64), data.x.astype(np.float64), data.y)
        assert set(sent) == {"gradient"}
        np.testing.assert_allclose(sent["gradient"], expected, rtol=0, atol=1e-6)
        device.weights = device.weights - np.float32(0.5) * sent["gradient"]


def test_a_plain_task_after_a_corrected_one_is_plain_again(device):
    first, _ = device.work(1)
    device.work(2, np.ones(SIZE, np.float32), **SCAFFOLD)
    device.memory = RunMemory()
    again, _ = device.work(1)
    np.testing.assert_array_equal(first["delta"], again["delta"])


def test_a_gradient_is_clipped_as_a_delta_is(device):
    sent, _ = device.work(1, kind=TaskKind.GRADIENT, clip_norm=0.01)
    assert np.linalg.norm(sent["gradient"]) == pytest.approx(0.01, rel=1e-4)


def test_local_parameters_start_from_the_memory_and_else_from_the_file(personal_file, runtime):
    device = Device(personal_file, runtime)
    initial = device.trainer.local_parameters
    first, _ = device.work(1)
    kept = device.memory
    assert set(kept.local) == set(initial) == {"head/kernel", "head/bias"}
    assert first["delta"].size == device.manifest.layout.size
    second, _ = device.work(2)
    device.memory = RunMemory()  # another run
    assert np.array_equal(device.work(1)[0]["delta"], first["delta"])
    device.memory = kept
    assert np.array_equal(device.work(2)[0]["delta"], second["delta"])
