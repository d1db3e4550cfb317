"""The masks that devices really draw: by the seeds of their steps, on both runtimes."""

from __future__ import annotations

import itertools

import keras
import numpy as np
import pytest
from keras import layers

from edgefl_converters.building.building import build
from edgefl_converters.verification.runtimes import Call, installed_runtimes
from edgefl_device_runtime.training.randomness import step_seeds
from interpreters import EXPECTED, needs_tflite_runtime

ELEMENTS, RATE, STEPS = 4096, 0.3, 6
DEVICES = (1, 2, 12345)


@pytest.fixture(scope="module")
def masks(tmp_path_factory):
    """Runtime to device to one mask a step: 1 where an element was kept, read off the gradient of a kernel of zeros."""
    model = keras.Sequential(
        [
            keras.Input((ELEMENTS,)),
            layers.Dropout(RATE),
            layers.Dense(1, kernel_initializer="zeros", use_bias=False),
        ]
    )
    model.compile(keras.optimizers.SGD(1.0), "mse")
    built = build(model, batch_size=1)
    path = tmp_path_factory.mktemp("masks") / "model.tflite"
    path.write_bytes(built.data)
    signatures = built.manifest.signatures
    keys = {spec.name: spec.tensor for spec in signatures["train"].inputs}
    (kernel,) = [spec.tensor for spec in signatures["get_weights"].outputs]
    (given,) = [spec.tensor for spec in signatures["set_weights"].inputs]

    def step(seed):
        values = {
            built.manifest.inputs[0]: np.ones((1, ELEMENTS), np.float32),
            "y": np.ones((1, 1), np.float32),
            "sample_weight": np.ones(1, np.float32),
            "learning_rate": np.ones(1, np.float32),
            "seed": np.asarray([seed], np.int32),
        }
        return Call("train", {keys[name]: value for name, value in values.items()})

    seeds = {device: step_seeds(STEPS, device, 0) for device in DEVICES}
    calls = []
    for device, number in itertools.product(DEVICES, range(STEPS)):
        calls.append(Call("set_weights", {given: np.zeros((ELEMENTS, 1), np.float32)}))
        calls += [step(seeds[device][number]), Call("get_weights")]
    found = {}
    for runtime in installed_runtimes():
        kernels = [output[kernel] for output in runtime.run(path, calls)[2::3]]
        kept = (np.stack(kernels).reshape(len(DEVICES), STEPS, ELEMENTS) != 0).astype(np.float64)
        found[runtime.name] = kept, np.stack(kernels)
    return found


@needs_tflite_runtime
def test_both_runtimes_draw_the_same_masks_and_scale_them_alike(masks):
    (kept, kernels), (other_kept, other_kernels) = masks.values()
    assert np.array_equal(kept, other_kept)
    assert kernels == pytest.approx(other_kernels, rel=1e-6)


def test_elements_are_dropped_at_the_rate(masks):
    kept, _ = masks[EXPECTED[-1]]
    deviation = (RATE * (1 - RATE) / ELEMENTS) ** 0.5
    # 18 masks: five standard deviations happen by chance once in a hundred thousand such tests.
    assert np.abs(1 - kept.mean(axis=2) - RATE).max() < 5 * deviation
    assert abs(1 - kept.mean() - RATE) < 5 * deviation / kept[..., 0].size ** 0.5


def test_masks_of_different_steps_and_devices_are_unrelated(masks):
    kept, _ = masks[EXPECTED[-1]]
    flat = kept.reshape(-1, ELEMENTS)
    correlations = np.corrcoef(flat)[np.triu_indices(len(flat), 1)]
    assert np.abs(correlations).max() < 5 / ELEMENTS**0.5
    assert correlations.std() == pytest.approx(ELEMENTS**-0.5, rel=0.3)


def test_neighbouring_elements_are_unrelated(masks):
    kept, _ = masks[EXPECTED[-1]]
    centred = kept - kept.mean()
    for lag in (1, 2, 7, 64):
        correlation = (centred * np.roll(centred, lag, axis=2)).mean() / centred.var()
        assert abs(correlation) < 5 / kept.size**0.5, lag
