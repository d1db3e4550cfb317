"""``edgefl.verify`` tells whether a file is the one that a Keras model converts to."""

from __future__ import annotations

import keras
import numpy as np
import pytest

import edgefl
import keras_models
from edgefl.errors import ModelFileError, VerificationError
from interpreters import EXPECTED


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    path = tmp_path_factory.mktemp("compare") / "mlp.tflite"
    path.write_bytes(keras_models.built("mlp").data)
    return path


def recompiled(optimizer="sgd", loss="sparse_categorical_crossentropy"):
    model = keras_models.mlp()
    model.compile(optimizer, loss, metrics=["accuracy"])
    return model


def rewired():
    """The same parameters in another function."""
    model = keras_models.mlp()
    model.layers[0].activation = keras.activations.tanh
    return model


def retrained():
    model = keras_models.mlp()
    model.layers[0].kernel.assign_add(np.full(model.layers[0].kernel.shape, 0.5, np.float32))
    return model


def test_the_model_that_the_file_was_made_from_agrees(file):
    report = edgefl.verify(file, keras_models.mlp())
    assert report.passed
    assert [each.name for each in report.runtimes] == list(EXPECTED)


def test_a_keras_file_that_was_not_compiled_is_compared_as_it_was_converted(file, tmp_path):
    keras.Sequential([keras.Input((6,)), *keras_models.mlp().layers]).save(tmp_path / "model.keras")
    assert edgefl.verify(file, tmp_path / "model.keras").passed


@pytest.mark.parametrize(
    ("other", "words"),
    [
        (lambda: recompiled("adam"), "it trains with SGD, the model with Adam"),
        (lambda: recompiled(keras.optimizers.SGD(0.5)), "its learning rate is 0.01, the model's 0.5"),
        (keras_models.conv1d, r"its outputs are dense_1, the model's dense \(and \d+ more differences\)"),
        (lambda: recompiled(keras.optimizers.SGD(0.01, clipnorm=0.01)), "gradient of dense_1"),
        (retrained, "initial 'dense/kernel' differs by up to 0.5"),
        (rewired, r"does not train as in Keras: infer of dense_1"),
        (lambda: recompiled(loss="kl_divergence"), r"its 'y' is int32 \(8,\), the model's float32 \(8, 4\)"),
    ],
)
def test_another_model_is_told_by_what_differs(file, other, words):
    with pytest.raises(VerificationError, match=words) as caught:
        edgefl.verify(file, other())
    assert caught.value.exit_code == 12
    assert "\n" not in str(caught.value)


def test_a_damaged_file_is_refused_before_anything_is_trained(file, tmp_path):
    data = bytearray(file.read_bytes())
    data[-200] ^= 0xFF
    (tmp_path / "damaged.tflite").write_bytes(data)
    with pytest.raises(ModelFileError):
        edgefl.verify(tmp_path / "damaged.tflite", "never looked at")
