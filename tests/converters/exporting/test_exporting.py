"""Trained weights become a Keras model again, or an inference model for any runtime."""

from __future__ import annotations

import sys

import keras
import numpy as np
import pytest
from keras import layers

import edgefl
import keras_models
from edgefl.errors import (
    DataError,
    InvalidSettingError,
    ModelError,
    ModelFileError,
    StorageError,
    UnsupportedModelError,
)
from edgefl.model_file import ModelFile
from edgefl_converters.building.building import build
from edgefl_converters.verification.runtimes import Call, installed_runtimes


@pytest.fixture(scope="module")
def cnn_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("export") / "cnn.tflite"
    path.write_bytes(keras_models.built("cnn", "adam").data)
    return path


@pytest.fixture(scope="module")
def trained(cnn_file):
    """Named weights, other than the initial ones, and the Keras model that has them."""
    file = ModelFile.read(cnn_file)
    generator = np.random.default_rng(3)
    vector = generator.normal(size=file.manifest.layout.size).astype(np.float32) / 4
    named = file.manifest.layout.views(vector)
    model = keras_models.cnn("adam")
    for variable, value in zip(model.trainable_variables, named.values(), strict=True):
        variable.assign(value)
    return vector, named, model


def images(rows):
    return np.random.default_rng(4).normal(size=(rows, 8, 8, 2)).astype(np.float32)


def test_the_keras_model_computes_the_same_function_and_can_be_trained_on(cnn_file, trained, tmp_path):
    _, named, model = trained
    np.savez(tmp_path / "weights.npz", **named)

    edgefl.export(cnn_file, tmp_path / "weights.npz", tmp_path / "model.keras")

    exported = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(exported(images(7)), model(images(7)), atol=1e-6)
    assert type(exported.optimizer).__name__ == "Adam"
    assert np.isfinite(exported.train_on_batch(images(4), np.zeros(4))[0])


def test_weights_may_be_a_flat_vector_a_mapping_or_those_of_the_file(cnn_file, trained, tmp_path):
    vector, named, _ = trained
    initial = ModelFile.read(cnn_file).initial_weights()
    for given, expected in ((vector, vector), (named, vector), (None, initial)):
        edgefl.export(cnn_file, given, tmp_path / "model.keras")
        exported = keras.saving.load_model(tmp_path / "model.keras")
        flat = np.concatenate([np.ravel(variable) for variable in exported.trainable_variables])
        np.testing.assert_array_equal(flat, expected)


def test_the_inference_model_computes_the_same_function_on_both_runtimes_for_any_number_of_rows(
    cnn_file, trained, tmp_path
):
    vector, _, model = trained

    path = edgefl.export(cnn_file, vector, tmp_path / "model.tflite").path

    manifest = ModelFile.read(cnn_file).manifest
    assert path.stat().st_size < cnn_file.stat().st_size / 2
    for runtime in installed_runtimes():
        calls = [Call("serving_default", {manifest.inputs[0]: images(rows)}) for rows in (1, 5)]
        for rows, outputs in zip((1, 5), runtime.run(path, calls), strict=True):
            np.testing.assert_allclose(outputs[manifest.outputs[0]], model(images(rows)), atol=1e-6)


def test_the_inference_model_is_the_same_bytes_every_time(cnn_file, trained, tmp_path):
    vector, _, _ = trained
    first = edgefl.export(cnn_file, vector, tmp_path / "one.tflite").path.read_bytes()
    layers.Dense(3)  # whatever else the process does
    assert edgefl.export(cnn_file, vector, tmp_path / "two.tflite").path.read_bytes() == first


def test_batch_statistics_are_exported_too(tmp_path):
    stack = [keras.Input((6,)), layers.Dense(8), layers.BatchNormalization(), layers.Dense(4, activation="softmax")]
    model = keras_models.classifier(stack)
    file = tmp_path / "file.tflite"
    file.write_bytes(build(model, batch_size=4).data)
    layout = ModelFile.read(file).manifest.layout
    vector = np.random.default_rng(0).uniform(0.5, 1.5, layout.size).astype(np.float32)

    edgefl.export(file, vector, tmp_path / "model.keras")

    exported = keras.saving.load_model(tmp_path / "model.keras")
    named = layout.views(vector)
    np.testing.assert_array_equal(exported.layers[1].moving_variance, named["batch_normalization/moving_variance"])


@pytest.mark.parametrize(
    ("weights", "words"),
    [
        (lambda named: {**named, "extra": np.zeros(1)}, r"unknown: \['extra'\]"),
        (lambda named: dict(list(named.items())[1:]), "missing"),
        (lambda named: {name: np.zeros(3) for name in named}, "expects shape"),
        (lambda named: {name: value * np.nan for name, value in named.items()}, "not finite"),
        (lambda named: np.zeros(5, np.float32), "Expected a float32 vector"),
    ],
)
def test_weights_of_another_layout_are_refused(cnn_file, trained, tmp_path, weights, words):
    with pytest.raises(DataError, match=words):
        edgefl.export(cnn_file, weights(trained[1]), tmp_path / "model.keras")
    assert list(tmp_path.iterdir()) == []


def test_a_file_of_weights_that_is_none_is_refused(cnn_file, tmp_path):
    (tmp_path / "weights.npz").write_bytes(b"not a zip")
    with pytest.raises(DataError, match=r"neither a \.npy.*nor an \.npz or \.safetensors"):
        edgefl.export(cnn_file, tmp_path / "weights.npz", tmp_path / "model.keras")
    with pytest.raises(StorageError, match="No such file"):
        edgefl.export(cnn_file, tmp_path / "missing.npz", tmp_path / "model.keras")


def test_outputs_and_files_of_other_kinds_are_refused(cnn_file, tmp_path):
    with pytest.raises(InvalidSettingError, match=r"\.keras, \.tflite, \.safetensors or \.npz"):
        edgefl.export(cnn_file, None, tmp_path / "model.h5")
    with pytest.raises(StorageError, match="folder does not exist"):
        edgefl.export(cnn_file, None, tmp_path / "missing" / "model.keras")
    damaged = bytearray(cnn_file.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    (tmp_path / "damaged.tflite").write_bytes(damaged)
    with pytest.raises(ModelFileError):
        edgefl.export(tmp_path / "damaged.tflite", None, tmp_path / "model.keras")
    assert [each.name for each in tmp_path.iterdir()] == ["damaged.tflite"]


def partly_frozen():
    model = keras_models.mlp()
    model.layers[0].trainable = False
    model.compile("sgd", "sparse_categorical_crossentropy")
    return model


def test_frozen_layers_come_from_the_base_model_which_stays_as_it_was(tmp_path):
    base = partly_frozen()
    before = [np.array(variable) for variable in base.variables]
    file = tmp_path / "file.tflite"
    file.write_bytes(build(base, batch_size=4).data)
    layout = ModelFile.read(file).manifest.layout
    vector = np.ones(layout.size, np.float32)

    with pytest.raises(UnsupportedModelError, match=r"2 frozen variables.*`base`"):
        edgefl.export(file, vector, tmp_path / "model.keras")
    edgefl.export(file, vector, tmp_path / "model.keras", base=base)

    exported = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(exported.layers[0].kernel, before[0])
    np.testing.assert_array_equal(exported.layers[1].kernel, np.ones((8, 4)))
    for old, variable in zip(before, base.variables, strict=True):
        np.testing.assert_array_equal(old, np.array(variable))
    with pytest.raises(ModelError, match="base model does not fit"):
        edgefl.export(file, vector, tmp_path / "other.keras", base=keras_models.conv1d())


class Scale(layers.Layer):
    """A class whose source is in no file."""

    def build(self, shape):
        self.factor = self.add_weight(shape=(shape[-1],), initializer="ones")

    def call(self, x):
        return x * self.factor


def with_own_class():
    keras.utils.set_random_seed(1)
    return keras_models.classifier([keras.Input((6,)), Scale(), layers.Dense(4, activation="softmax")])


def test_classes_of_ones_own_need_their_source(tmp_path, monkeypatch):
    file = tmp_path / "file.tflite"
    file.write_bytes(build(with_own_class(), batch_size=4).data)
    with pytest.raises(UnsupportedModelError, match=r"classes of your own \(.*Scale.*`base`"):
        edgefl.export(file, None, tmp_path / "model.keras")

    edgefl.export(file, None, tmp_path / "model.keras", base=with_own_class())

    loaded = keras.saving.load_model(tmp_path / "model.keras", custom_objects={"Scale": Scale})
    np.testing.assert_array_equal(loaded.layers[0].factor, np.ones(6))


def own_loss(target, prediction):
    return keras.ops.mean((target - prediction) ** 4, axis=-1)


def test_a_loss_of_ones_own_is_left_out_of_the_keras_model(tmp_path):
    model = keras.Sequential([keras.Input((3,)), layers.Dense(2)])
    model.compile("sgd", own_loss)
    file = tmp_path / "file.tflite"
    file.write_bytes(build(model, batch_size=4).data)

    edgefl.export(file, None, tmp_path / "model.keras")

    exported = keras.saving.load_model(tmp_path / "model.keras")
    assert not exported.compiled
    np.testing.assert_array_equal(exported.layers[0].kernel, model.layers[0].kernel)


def test_nested_models_are_exported_though_keras_gives_their_variables_other_paths(tmp_path):
    inner = keras.Sequential([keras.Input((3,)), layers.Dense(4, activation="relu"), layers.Dense(2)])
    outer = keras.Sequential([keras.Input((3,)), inner, layers.Dense(2)])
    outer.compile("sgd", "mse")
    file = tmp_path / "file.tflite"
    file.write_bytes(build(outer, batch_size=4).data)
    vector = np.random.default_rng(1).normal(size=ModelFile.read(file).manifest.layout.size).astype(np.float32)

    edgefl.export(file, vector, tmp_path / "model.keras")

    exported = keras.saving.load_model(tmp_path / "model.keras")
    flat = np.concatenate([np.ravel(variable) for variable in exported.trainable_variables])
    np.testing.assert_array_equal(flat, vector)


def test_the_trainable_file_is_never_overwritten(cnn_file):
    before = cnn_file.read_bytes()
    with pytest.raises(InvalidSettingError, match="trainable model file itself"):
        edgefl.export(cnn_file, None, cnn_file)
    assert cnn_file.read_bytes() == before


def test_importing_the_package_imports_no_tensorflow():
    import subprocess

    code = "import sys, edgefl_converters, edgefl_converters.cli.verbs; sys.exit('tensorflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
