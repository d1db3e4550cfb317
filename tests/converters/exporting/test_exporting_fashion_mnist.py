"""Full int8 on real images: how much accuracy it costs (Fashion-MNIST, Xiao et al. 2017)."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
from keras import layers

import edgefl
from edgefl_converters.building.building import build
from edgefl_converters.verification.runtimes import Call, installed_runtimes
from interpreters import EXPECTED

pytestmark = pytest.mark.slow

IMAGES = Path(__file__).parents[3] / "examples" / "fashion_mnist" / "images.py"
CALIBRATION_ROWS = 500
MOST_LOST = 0.01


def images():
    """The module that reads the data set."""
    spec = importlib.util.spec_from_file_location("fashion_mnist_images", IMAGES)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A CNN that has seen the training images once, as a model file, with both parts of the data set."""
    data = images()
    x, y = data.load(data.DEBIAN_FOLDER, "train")
    keras.utils.set_random_seed(1)
    model = keras.Sequential(
        [
            keras.Input((28, 28, 1)),
            layers.Conv2D(16, 3, activation="relu"),
            layers.MaxPooling2D(),
            layers.Conv2D(32, 3, activation="relu"),
            layers.MaxPooling2D(),
            layers.Flatten(),
            layers.Dense(64, activation="relu"),
            layers.Dense(10, activation="softmax"),
        ]
    )
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    model.fit(x, y, batch_size=64, epochs=1, verbose=0)
    file = tmp_path_factory.mktemp("fashion") / "model.tflite"
    file.write_bytes(build(model, batch_size=32).data)
    return file, x[:CALIBRATION_ROWS], data.load(data.DEBIAN_FOLDER, "t10k")


def accuracies(path, x, y):
    """The share of images that each runtime recognises."""
    found = {}
    for runtime in installed_runtimes():
        calls = [Call("serving_default", {"input_layer": x[start : start + 500]}) for start in range(0, len(x), 500)]
        outputs = [next(iter(each.values())) for each in runtime.run(path, calls)]
        found[runtime.name] = float(np.mean(np.concatenate(outputs).argmax(axis=1) == y))
    return found


@pytest.mark.parametrize("quantize", ["float16", "dynamic", "int8"])
def test_fewer_bits_lose_less_than_a_point_of_accuracy_on_both_runtimes(trained, tmp_path, quantize):
    file, calibration, (x, y) = trained
    plain = edgefl.export(file, None, tmp_path / "float32.tflite")
    given = calibration if quantize == "int8" else None
    small = edgefl.export(file, None, tmp_path / "small.tflite", quantize=quantize, calibration=given)

    before, after = accuracies(plain.path, x, y), accuracies(small.path, x, y)

    assert set(after) == set(EXPECTED)
    assert min(before.values()) > 0.8
    for name, accuracy in after.items():
        assert accuracy > before[name] - MOST_LOST, (before, after)
