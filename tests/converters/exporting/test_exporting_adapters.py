"""Models with LoRA adapters come back as ordinary models, or with their adapters."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import keras
import numpy as np
import pytest
from keras import layers

import edgefl
import keras_models
from edgefl.errors import InvalidSettingError, UnsupportedModelError, VerificationError
from edgefl.model_file import ModelFile
from edgefl_converters.building.building import build
from edgefl_converters.models.adapter_layers import merge
from edgefl_converters.verification.runtimes import Call, installed_runtimes

spec = importlib.util.spec_from_file_location("lora_models", Path(__file__).parents[1] / "lora_models.py")
lora_models = importlib.util.module_from_spec(spec)
spec.loader.exec_module(lora_models)
TOKENS = lora_models.TOKENS


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A file, trained values of its adapters, and the Keras model with them; alpha is not the rank."""
    file = tmp_path_factory.mktemp("lora") / "lora.tflite"
    file.write_bytes(build(lora_models.adapted(8), batch_size=4).data)
    model, values = lora_models.with_values(lora_models.adapted(8))
    return file, values, model


@pytest.fixture(scope="module")
def merged(trained, tmp_path_factory):
    """The ordinary model with the adapters in its weights."""
    file, values, model = trained
    path = tmp_path_factory.mktemp("merged") / "ours.keras"
    edgefl.export(file, values, path, base=model)
    return keras.saving.load_model(path)


def test_the_parameters_of_the_file_are_adapters_only(trained):
    file, values, _ = trained
    assert set(ModelFile.read(file).manifest.layout.names) == set(values)


def test_merged_adapters_compute_what_kerass_own_merged_model_computes(trained, merged, tmp_path):
    model = trained[2]
    model.save(tmp_path / "keras.keras")
    by_keras = keras.saving.load_model(tmp_path / "keras.keras")

    assert not any("lora" in variable.name for variable in merged.weights)
    assert "lora" not in str(merged.get_config())
    np.testing.assert_allclose(merged(TOKENS), by_keras(TOKENS), atol=1e-5)
    np.testing.assert_allclose(merged(TOKENS), model(TOKENS), atol=1e-5)


@pytest.mark.parametrize("kind", ["dense", "einsum", "conv", "embedding", "attention"])
def test_each_kind_of_layer_is_merged_as_keras_merges_it(trained, merged, kind):
    pairs = [(merged.get_layer(kind), trained[2].get_layer(kind))]
    if kind == "attention":
        names = ("query_dense", "key_dense", "value_dense", "output_dense")
        pairs = [(getattr(one, name), getattr(other, name)) for one, other in pairs for name in names]
    for one, other in pairs:
        matrix = "embeddings" if kind == "embedding" else "kernel"
        np.testing.assert_allclose(getattr(one, matrix), getattr(other, matrix), atol=1e-6)


def test_an_inference_model_has_its_adapters_merged(trained, tmp_path):
    file, values, model = trained
    edgefl.export(file, values, tmp_path / "inference.tflite", base=model)
    for runtime in installed_runtimes():
        [outputs] = runtime.run(tmp_path / "inference.tflite", [Call("serving_default", {"tokens": TOKENS})])
        np.testing.assert_allclose(outputs["head"], model(TOKENS), atol=1e-5)


def test_kept_adapters_come_back_with_their_values_and_nothing_else_is_trained(trained, tmp_path):
    file, values, model = trained

    result = edgefl.export(file, values, tmp_path / "kept.keras", base=model, adapters="kept")

    assert result.report["adapters"] == "kept"
    loaded = edgefl.load_model(tmp_path / "kept.keras")
    assert {variable.path: variable.shape for variable in loaded.trainable_variables} == {
        name: value.shape for name, value in values.items()
    }
    for name, value in values.items():
        np.testing.assert_array_equal(next(v for v in loaded.weights if v.path == name), value)
    np.testing.assert_array_equal(loaded.get_layer("dense")._kernel, model.get_layer("dense")._kernel)
    assert loaded.get_layer("dense").lora_alpha == model.get_layer("dense").lora_alpha
    np.testing.assert_allclose(loaded(TOKENS), model(TOKENS), atol=1e-6)


def test_kept_adapters_go_on_training_and_the_rest_stays(trained, tmp_path):
    file, values, model = trained
    edgefl.export(file, values, tmp_path / "kept.keras", base=model, adapters="kept")
    loaded = edgefl.load_model(tmp_path / "kept.keras")
    before = {variable.path: np.array(variable) for variable in loaded.weights}

    loaded.fit(TOKENS, np.arange(8) % 3, epochs=2, verbose=0)

    moved = {variable.path for variable in loaded.weights if np.any(np.array(variable) != before[variable.path])}
    assert moved == set(values)


def test_keras_alone_reads_the_function_of_kept_adapters(trained, tmp_path):
    file, values, model = trained
    edgefl.export(file, values, tmp_path / "kept.keras", base=model, adapters="kept")
    loaded = keras.saving.load_model(tmp_path / "kept.keras")
    assert loaded.get_layer("dense").lora_enabled
    np.testing.assert_allclose(loaded(TOKENS), model(TOKENS), atol=1e-5)


def test_kept_adapters_convert_again_to_the_same_layout_and_values(trained, tmp_path):
    file, values, model = trained
    edgefl.export(file, values, tmp_path / "kept.keras", base=model, adapters="kept")

    again = ModelFile(build(edgefl.load_model(tmp_path / "kept.keras"), batch_size=4).data)

    before = ModelFile.read(file).manifest
    assert again.manifest.layout_hash == before.layout_hash
    np.testing.assert_array_equal(again.initial_weights(), before.layout.pack(values))


@pytest.mark.parametrize("every_kind", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_adapters_that_a_configuration_does_not_tell_of_are_verified_with_their_alpha(request, every_kind, tmp_path):
    if every_kind:
        model = request.getfixturevalue("trained")[2]
    else:
        keras.utils.set_random_seed(1)
        model = keras.Sequential([keras.Input((4,)), layers.Dense(5), layers.Dense(3)])
        model.layers[0].enable_lora(2, lora_alpha=8)
        model.layers[0].lora_kernel_b.assign(np.ones((2, 5)))
        model.compile("sgd", "mse")
    result = edgefl.convert(model, tmp_path / "again.tflite", batch_size=4)
    assert result.report["verification"]["passed"]


def test_adapters_that_keras_zeroed_can_be_trained_again(tmp_path):
    model, _ = lora_models.with_values(lora_models.adapted())
    model.save(tmp_path / "by_keras.keras")

    loaded = edgefl.load_model(tmp_path / "by_keras.keras")

    np.testing.assert_allclose(loaded(TOKENS), model(TOKENS), atol=1e-6)
    dense = loaded.get_layer("dense")
    assert np.any(np.array(dense.lora_kernel_a))
    assert not np.any(np.array(dense.lora_kernel_b))
    loaded.fit(TOKENS, np.arange(8) % 3, verbose=0)
    assert np.any(np.array(dense.lora_kernel_b))


def test_adapters_in_an_hdf5_file_keep_their_values_and_their_alpha(tmp_path):
    keras.utils.set_random_seed(1)
    model = keras.Sequential([keras.Input((4,)), layers.Dense(5), layers.Dense(3)])
    model.layers[0].enable_lora(2, lora_alpha=8)
    model.layers[0].lora_kernel_b.assign(np.ones((2, 5)))
    model.save(tmp_path / "model.h5")

    loaded = edgefl.load_model(tmp_path / "model.h5")

    x = np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32)
    np.testing.assert_allclose(loaded(x), model(x), atol=1e-6)


@pytest.fixture(scope="module")
def ordinary(tmp_path_factory):
    """A file with adapters whose alpha is their rank, and values."""
    file = tmp_path_factory.mktemp("lora") / "lora.tflite"
    file.write_bytes(build(lora_models.adapted(), batch_size=4).data)
    return (file, *reversed(lora_models.with_values(lora_models.adapted())))


@pytest.mark.parametrize("adapters", ["merged", "kept"])
def test_a_base_model_without_adapters_will_do_and_stays_as_it_was(ordinary, tmp_path, adapters):
    file, values, model = ordinary
    base = lora_models.plain()
    before = [np.array(variable) for variable in base.variables]

    edgefl.export(file, values, tmp_path / "model.keras", base=base, adapters=adapters)

    np.testing.assert_allclose(edgefl.load_model(tmp_path / "model.keras")(TOKENS), model(TOKENS), atol=1e-5)
    assert not base.get_layer("dense").lora_enabled
    for old, variable in zip(before, base.variables, strict=True):
        np.testing.assert_array_equal(old, np.array(variable))


def test_weights_by_name_with_a_base_are_all_that_is_needed_to_rebuild_the_model(ordinary, tmp_path):
    file, values, model = ordinary
    edgefl.export(file, values, tmp_path / "all.safetensors", base=lora_models.plain())

    edgefl.export(file, tmp_path / "all.safetensors", tmp_path / "model.keras")

    np.testing.assert_allclose(keras.saving.load_model(tmp_path / "model.keras")(TOKENS), model(TOKENS), atol=1e-5)


def test_without_a_base_frozen_weights_are_missed(ordinary, tmp_path):
    file, values, _ = ordinary
    with pytest.raises(UnsupportedModelError, match=r"frozen variables.*`base`"):
        edgefl.export(file, values, tmp_path / "model.keras")
    assert list(tmp_path.iterdir()) == []


def test_another_base_is_noticed_by_what_it_computes(ordinary, tmp_path):
    file, values, _ = ordinary
    base = lora_models.plain()
    base.get_layer("head").kernel.assign(base.get_layer("head").kernel * 1.5)
    with pytest.raises(VerificationError, match=r"base model is not the one"):
        edgefl.export(file, values, tmp_path / "model.keras", base=base)
    assert list(tmp_path.iterdir()) == []


def test_an_alpha_that_nothing_tells_is_noticed_by_what_the_model_computes(trained, tmp_path):
    file, values, _ = trained
    with pytest.raises(VerificationError, match="alpha of their own"):
        edgefl.export(file, values, tmp_path / "model.keras", base=lora_models.plain())


def test_adapters_that_are_not_there_cannot_be_kept(tmp_path):
    file = tmp_path / "mlp.tflite"
    file.write_bytes(keras_models.built("mlp").data)
    with pytest.raises(InvalidSettingError, match="no LoRA adapters to keep"):
        edgefl.export(file, None, tmp_path / "model.keras", adapters="kept")
    with pytest.raises(InvalidSettingError, match=r"kept in a \.keras file"):
        edgefl.export(file, None, tmp_path / "model.tflite", adapters="kept")
    with pytest.raises(InvalidSettingError, match=r"one of merged, kept, got 'melted'"):
        edgefl.export(file, None, tmp_path / "model.keras", adapters="melted")


def test_merging_is_the_layers_own_arithmetic_for_kernels_of_any_rank():
    generator = np.random.default_rng(0)
    layer = layers.Conv2D(5, 3)
    layer.build((None, 8, 8, 2))
    layer.enable_lora(2, lora_alpha=6)
    layer.lora_kernel_b.assign(generator.normal(size=layer.lora_kernel_b.shape))
    merged = merge(*(np.array(v) for v in (layer._kernel, layer.lora_kernel_a, layer.lora_kernel_b)), 3.0)
    np.testing.assert_allclose(merged, layer.kernel, atol=1e-6)
