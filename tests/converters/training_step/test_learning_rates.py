"""The learning rate of a step beside the one that a model was compiled with."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import layers
from keras.optimizers import schedules

from edgefl_converters.building.building import build
from edgefl_converters.training_step.learning_rates import compiled_learning_rate, is_factor
from edgefl_converters.verification.runtimes import Call, installed_runtimes


def compiled(optimizer):
    model = keras.Sequential([keras.Input((3,)), layers.Dense(2, kernel_initializer="ones")])
    model.compile(optimizer, "mse")
    return model


def test_a_plain_learning_rate_is_what_a_step_replaces():
    optimizer = keras.optimizers.SGD(0.1)
    assert not is_factor(optimizer)
    assert compiled_learning_rate(optimizer) == 0.1
    assert build(compiled(optimizer), batch_size=2).manifest.learning_rate == 0.1


def test_a_schedule_is_multiplied():
    optimizer = keras.optimizers.SGD(schedules.ExponentialDecay(0.5, 1, 0.5))
    assert is_factor(optimizer)
    assert build(compiled(optimizer), batch_size=2).manifest.learning_rate == 1.0


@pytest.mark.parametrize("rate", [1.0, 0.25])
def test_each_step_of_a_file_is_as_long_as_the_schedule_says_times_the_rate(rate, tmp_path):
    schedule = schedules.PiecewiseConstantDecay([0, 1], [0.5, 0.1, 0.02])
    built = build(compiled(keras.optimizers.SGD(schedule)), batch_size=2)
    path = tmp_path / "model.tflite"
    path.write_bytes(built.data)
    train = {spec.name: spec for spec in built.manifest.signatures["train"].inputs}
    x, y = np.ones((2, 3), np.float32), np.zeros((2, 2), np.float32)
    given = {
        built.manifest.inputs[0]: x,
        "y": y,
        "sample_weight": np.ones(2, np.float32),
        "learning_rate": np.asarray([rate], np.float32),
    }
    step = Call("train", {train[name].tensor: value for name, value in given.items()})
    calls = [Call("get_weights", fresh=True)] + [step, Call("get_weights")] * 3
    key = {spec.name: spec.tensor for spec in built.manifest.signatures["get_weights"].outputs}
    for runtime in installed_runtimes():
        outputs = runtime.run(path, calls)
        kernels = [outputs[index][key["dense/kernel"]] for index in (0, 2, 4, 6)]
        biases = [outputs[index][key["dense/bias"]] for index in (0, 2, 4, 6)]
        for index, length in enumerate((0.5, 0.1, 0.02)):
            # The mean over two outputs of a square: its derivative is the prediction, for each row and unit.
            prediction = x[0] @ kernels[index] + biases[index]
            assert biases[index + 1] - biases[index] == pytest.approx(-rate * length * prediction, rel=1e-4)
