"""Weights by name leave as files that other tools read, and come back as they were."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import safetensors.numpy
from keras import layers

import edgefl
import keras_models
from edgefl.errors import DataError, StorageError
from edgefl.model_file import ModelFile
from edgefl_converters.building.building import build
from edgefl_converters.verification.runtimes import Call, installed_runtimes


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "cnn.tflite"
    path.write_bytes(keras_models.built("cnn", "adam").data)
    return path


@pytest.fixture(scope="module")
def vector(file):
    size = ModelFile.read(file).manifest.layout.size
    return np.random.default_rng(5).normal(size=size).astype(np.float32)


def read(path):
    if path.suffix == ".safetensors":
        return safetensors.numpy.load_file(path)
    with np.load(path) as archive:
        return {name: archive[name] for name in archive.files}


@pytest.mark.parametrize("suffix", [".safetensors", ".npz"])
def test_weights_are_written_by_name_and_taken_back(file, vector, tmp_path, suffix):
    result = edgefl.export(file, vector, tmp_path / f"weights{suffix}")

    layout = ModelFile.read(file).manifest.layout
    arrays = read(result.path)
    assert set(arrays) == set(layout.names)
    assert result.report == {"bytes": result.path.stat().st_size, "arrays": len(layout.names)}
    np.testing.assert_array_equal(layout.pack(arrays), vector)
    again = edgefl.export(file, result.path, tmp_path / f"again{suffix}")
    assert again.path.read_bytes() == result.path.read_bytes()
    edgefl.export(file, result.path, tmp_path / "model.keras")
    flat = [np.ravel(each) for each in keras.saving.load_model(tmp_path / "model.keras").trainable_variables]
    np.testing.assert_array_equal(np.concatenate(flat), vector)


def frozen_inside():
    """A nested model that is frozen, whose variables Keras calls otherwise than its place in the model does."""
    keras.utils.set_random_seed(2)
    inner = keras.Sequential([keras.Input((3,)), layers.Dense(4, activation="relu"), layers.BatchNormalization()])
    inner.trainable = False
    model = keras.Sequential([keras.Input((3,)), inner, layers.Dense(2)])
    model.compile("sgd", "mse")
    return model


@pytest.mark.parametrize("suffix", [".safetensors", ".npz"])
def test_with_a_base_the_frozen_weights_are_written_too_and_can_replace_it(tmp_path, suffix):
    base = frozen_inside()
    (tmp_path / "file.tflite").write_bytes(build(base, batch_size=4).data)

    few = edgefl.export(tmp_path / "file.tflite", None, tmp_path / f"few{suffix}")
    every = edgefl.export(tmp_path / "file.tflite", None, tmp_path / f"every{suffix}", base=base)

    assert set(read(few.path)) == {"dense/kernel", "dense/bias"}
    assert set(read(every.path)) - set(read(few.path)) == {
        f"sequential/{name}"
        for name in (
            "dense/kernel",
            "dense/bias",
            *(f"batch_normalization/{each}" for each in ("gamma", "beta", "moving_mean", "moving_variance")),
        )
    }
    again = edgefl.export(tmp_path / "file.tflite", every.path, tmp_path / f"again{suffix}")
    assert set(read(again.path)) == set(read(every.path))
    edgefl.export(tmp_path / "file.tflite", every.path, tmp_path / "model.keras")
    x = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)
    np.testing.assert_allclose(keras.saving.load_model(tmp_path / "model.keras")(x), base(x), atol=1e-6)


def test_weights_of_another_layout_are_refused(file, tmp_path):
    (tmp_path / "mlp.tflite").write_bytes(keras_models.built("mlp").data)
    edgefl.export(tmp_path / "mlp.tflite", None, tmp_path / "mlp.safetensors")
    with pytest.raises(DataError, match=r"missing: .*conv2d"):
        edgefl.export(file, tmp_path / "mlp.safetensors", tmp_path / "model.keras")


def test_a_file_that_holds_no_weights_is_refused(file, tmp_path):
    (tmp_path / "weights.safetensors").write_bytes(b"\xff" * 20)
    with pytest.raises(DataError, match=r"neither a \.npy"):
        edgefl.export(file, tmp_path / "weights.safetensors", tmp_path / "model.keras")
    with pytest.raises(StorageError, match="No such file"):
        edgefl.export(file, tmp_path / "none.safetensors", tmp_path / "model.keras")


def test_what_is_exported_converts_again_to_the_same_layout_and_function(file, vector, tmp_path):
    source = ModelFile.read(file)
    before = source.manifest

    edgefl.export(file, vector, tmp_path / "model.keras")
    again = edgefl.convert(tmp_path / "model.keras", tmp_path / "again.tflite", batch_size=8, verify=False)

    assert again.manifest.layout_hash == before.layout_hash
    np.testing.assert_array_equal(ModelFile.read(again.path).initial_weights(), vector)
    named = before.layout.views(vector)
    given = Call("set_weights", {spec.tensor: named[spec.name] for spec in before.signatures["set_weights"].inputs})
    x = np.random.default_rng(0).normal(size=(8, 8, 8, 2)).astype(np.float32)
    infer = Call("infer", {before.signatures["infer"].inputs[0].tensor: x})
    for runtime in installed_runtimes():
        [first] = runtime.run(again.path, [infer])
        for key, outputs in runtime.run(file, [given, infer])[1].items():
            np.testing.assert_array_equal(first[key], outputs)
