"""``edgefl.convert`` writes a checked file and its report, or nothing at all."""

from __future__ import annotations

import json

import keras
import numpy as np
import pytest
from keras import layers

import edgefl
import keras_models
from edgefl.errors import InvalidSettingError, ModelError, StorageError, UnsupportedModelError, VerificationError
from edgefl.model_file import ModelFile
from edgefl_converters import converting
from edgefl_converters.emission.registry import LOWERINGS
from interpreters import EXPECTED


def test_a_model_becomes_a_file_with_its_report_beside_it(tmp_path):
    model = keras_models.mlp()
    lines = []

    result = edgefl.convert(model, tmp_path / "model.tflite", batch_size=4, on_progress=lines.append)

    assert sorted(each.name for each in tmp_path.iterdir()) == ["model.tflite", "model.tflite.report.json"]
    file = ModelFile.read(result.path)
    file.verify()
    assert file.manifest.to_json() == result.manifest.to_json()
    report = json.loads((tmp_path / "model.tflite.report.json").read_text())
    assert report == result.report
    assert report["verification"]["passed"]
    assert [each["ran"] for each in report["verification"]["runtimes"]] == [True] * len(EXPECTED)
    assert len(lines) == 2


def test_conversion_leaves_the_model_as_it_was(tmp_path):
    model = keras_models.mlp()
    before = [np.array(variable) for variable in model.variables]

    edgefl.convert(model, tmp_path / "model.tflite", batch_size=4, verify=False)

    for old, variable in zip(before, model.variables, strict=True):
        np.testing.assert_array_equal(old, np.array(variable))
    assert int(model.optimizer.iterations) == 0


def test_loss_and_optimizer_may_be_given(tmp_path):
    model = keras.Sequential([keras.Input((3,)), layers.Dense(1)])

    result = edgefl.convert(model, tmp_path / "m.tflite", loss="mse", optimizer="sgd", batch_size=4, verify=False)

    assert result.report["verification"] is None
    assert result.manifest.learning_rate == 0.01


class Decomposing(layers.Layer):
    """Uses an op that no runtime has."""

    def build(self, shape):
        self.weight = self.add_weight(shape=(shape[-1], shape[-1]))

    def call(self, x):
        import tensorflow as tf

        return x @ tf.linalg.cholesky(self.weight)


def with_loss(loss, *stack, shape=(6,)):
    model = keras.Sequential([keras.Input(shape), *stack])
    model.compile("sgd", loss)
    return model


@pytest.mark.parametrize(
    ("make", "options", "error", "words"),
    [
        (lambda: "nowhere.keras", {}, ModelError, "no file"),
        (lambda: keras.Sequential([keras.Input((3,)), layers.Dense(1)]), {}, ModelError, "not compiled"),
        (keras_models.mlp, {"batch_size": 0}, InvalidSettingError, "at least 1, .*got 0"),
        (keras_models.mlp, {"optimizer": "sdg"}, InvalidSettingError, "Did you mean 'sgd'"),
        (lambda: with_loss("categorical_crossentropy", layers.Dense(1)), {}, ModelError, "two classes"),
        (
            lambda: with_loss("mse", layers.Conv1D(2, 3), shape=(None, 4)),
            {},
            UnsupportedModelError,
            r"`input_shape=\(100, 4\)`",
        ),
        (lambda: with_loss("mse", layers.Dense(2, dtype="float16")), {}, UnsupportedModelError, "float16"),
        (
            lambda: with_loss("mse", Decomposing()),
            {},
            UnsupportedModelError,
            r"'decomposing' \(Decomposing\): Cholesky",
        ),
    ],
)
def test_a_model_that_cannot_be_converted_leaves_no_file(tmp_path, make, options, error, words):
    with pytest.raises(error, match=words) as caught:
        edgefl.convert(make(), tmp_path / "model.tflite", **options)
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_a_model_that_trains_otherwise_than_in_keras_leaves_no_file(tmp_path, monkeypatch):
    monkeypatch.setitem(LOWERINGS, "ReluGrad", lambda op, inputs, context: [inputs[0]])
    old = tmp_path / "model.tflite"
    old.write_bytes(b"the file of yesterday")

    with pytest.raises(VerificationError, match=r"gradient of dense/bias.*layer 'dense") as caught:
        edgefl.convert(keras_models.mlp(), old, batch_size=4)

    assert "ReluGrad" in str(caught.value.hint)
    assert [each.name for each in tmp_path.iterdir()] == ["model.tflite"]
    assert old.read_bytes() == b"the file of yesterday"


class ActivationLoss(layers.Layer):
    """Adds the mean square of what passes through: every row of the batch counts, padding too."""

    def call(self, x):
        self.add_loss(keras.ops.mean(keras.ops.square(x)))
        return x


class CentredByTheBatch(layers.Layer):
    """Subtracts the mean of the batch: every row of it counts, padding too."""

    def call(self, x):
        return x - keras.ops.mean(x, axis=0)


def test_a_layer_that_looks_at_the_whole_batch_is_refused_because_padding_would_be_felt(tmp_path):
    model = with_loss("mse", layers.Dense(3), CentredByTheBatch())
    with pytest.raises(VerificationError, match=r"Only batches with padding differ.*\(CentredByTheBatch\)"):
        edgefl.convert(model, tmp_path / "model.tflite", batch_size=4)
    assert list(tmp_path.iterdir()) == []


def test_a_loss_that_a_layer_adds_is_one_of_whole_batches(tmp_path):
    model = with_loss("mse", layers.Dense(3), ActivationLoss())
    manifest = edgefl.convert(model, tmp_path / "model.tflite", batch_size=4).manifest
    assert manifest.mixes_rows
    assert manifest.of_whole_batches == ("what layer 'activation_loss' (ActivationLoss) adds to the loss",)


def test_a_regularizer_of_activations_feels_no_padding(tmp_path):
    edgefl.convert(with_loss("mse", layers.Dense(3, activity_regularizer="l2")), tmp_path / "m.tflite", batch_size=4)


def test_the_model_itself_is_never_overwritten(tmp_path):
    path = tmp_path / "model.keras"
    keras_models.mlp().save(path)
    before = path.read_bytes()
    with pytest.raises(InvalidSettingError, match="is the model itself"):
        edgefl.convert(path, path)
    assert path.read_bytes() == before


def test_a_place_that_cannot_be_written_is_found_before_the_work_starts(tmp_path):
    with pytest.raises(StorageError, match="does not exist"):
        edgefl.convert("never looked at", tmp_path / "missing" / "model.tflite")
    with pytest.raises(InvalidSettingError, match="is a folder"):
        edgefl.convert("never looked at", tmp_path)


def test_a_disk_that_fills_up_leaves_neither_model_nor_report(tmp_path, monkeypatch):
    def full(path, data):
        raise StorageError("No space left on device.")

    monkeypatch.setattr(converting, "write_bytes", full)
    with pytest.raises(StorageError):
        edgefl.convert(keras_models.mlp(), tmp_path / "model.tflite", verify=False)
    assert list(tmp_path.iterdir()) == []
