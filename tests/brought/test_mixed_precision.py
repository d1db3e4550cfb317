"""Models in mixed precision: their variables are float32, and they are trained in float32, which the report says."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import keras
import numpy as np
import pytest
from keras import layers

import edgefl
import edgefl_converters
from edgefl.errors import UnsupportedModelError
from edgefl.model_file import ModelFile
from edgefl_converters.building.building import build
from edgefl_converters.models.loading import load
from edgefl_converters.training_step.precision import in_float32, mixed_layers
from edgefl_converters.verification.agreement import check_agreement

ARCHIVE = Path(__file__).with_name("keras_2_files.zip")


@pytest.fixture(autouse=True)
def _policy():
    """Puts the policy of the process back."""
    yield
    keras.config.set_dtype_policy("float32")


def _model(policy, head="float32"):
    keras.utils.set_random_seed(1)
    keras.config.set_dtype_policy(policy)
    inputs = keras.Input((6, 3))
    x = layers.Conv1D(4, 3, activation="relu", name="conv")(inputs / 2)
    x = layers.BatchNormalization(name="norm")(x)
    x = layers.LSTM(3, name="lstm")(keras.ops.cast(x, keras.config.dtype_policy().compute_dtype))
    model = keras.Model(inputs, layers.Dense(2, activation="softmax", dtype=head, name="head")(x))
    model.compile(keras.optimizers.Adam(0.02), "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_the_copy_computes_in_float32_with_the_same_weights_and_compiled_in_the_same_way(policy):
    model = _model(policy)
    assert set(mixed_layers(model)) >= {"conv", "norm", "lstm"}
    assert "head" not in mixed_layers(model)

    with in_float32(model) as single:
        assert mixed_layers(single) == {}
        x = np.random.default_rng(0).normal(size=(4, 6, 3)).astype("float32")
        half, whole = np.array(model(x)), np.array(single(x))
        assert type(single.optimizer) is keras.optimizers.Adam  # without what scales the loss
        assert float(single.optimizer.learning_rate) == pytest.approx(0.02)
        again = keras.layers.Dense(1)
    assert again.compute_dtype == "float32"
    assert keras.config.dtype_policy().name == policy
    assert mixed_layers(model)  # the user's own model is left as it is
    for variable, same in zip(model.weights, single.weights, strict=True):
        np.testing.assert_array_equal(variable, same)
    assert np.abs(half - whole).max() < 0.02
    reference = _model("float32")
    reference.set_weights(model.get_weights())
    np.testing.assert_allclose(whole, reference(x), atol=1e-6)


def test_a_model_in_mixed_precision_is_converted_verified_and_says_so(tmp_path):
    model, lines = _model("mixed_float16"), []

    result = edgefl.convert(model, tmp_path / "m.tflite", batch_size=4, on_progress=lines.append)

    assert result.report["verification"] is not None
    assert result.report["mixed_precision"]["layers"]["conv"] == "float16"
    assert result.report["mixed_precision"]["trained_in"] == "float32"
    assert any("float16 is computed in float32" in line for line in lines)
    assert json.loads((tmp_path / "m.tflite.report.json").read_text())["mixed_precision"]["trained_in"] == "float32"
    source = ModelFile.read(tmp_path / "m.tflite")
    (kernel,) = (each for each in source.manifest.parameters if each.name == "conv/kernel")
    np.testing.assert_array_equal(source.initial_value(kernel), model.get_layer("conv").kernel)
    assert edgefl.verify(tmp_path / "m.tflite", model).passed
    edgefl.export(tmp_path / "m.tflite", None, tmp_path / "again.keras")
    assert mixed_layers(keras.saving.load_model(tmp_path / "again.keras")) == {}


def test_a_model_in_float32_is_taken_as_it_is():
    model = _model("float32")
    with in_float32(model) as single:
        assert single is model


@pytest.mark.parametrize("form", [".h5", ".keras", ""])
def test_a_file_of_keras_2_in_mixed_precision_is_trained_in_float32(tmp_path, form):
    with zipfile.ZipFile(ARCHIVE) as archive:
        archive.extractall(tmp_path, [each for each in archive.namelist() if each.startswith("in_half_precision")])
    with np.load(tmp_path / "in_half_precision.npz") as saved:
        x, y = saved["x0"], saved["y0"]

    model = load(tmp_path / f"in_half_precision{form}")

    np.testing.assert_allclose(model(x), y, atol=2e-3)  # in float16 there and here
    with in_float32(model) as single:
        assert mixed_layers(single) == {}
        assert float(single.optimizer.learning_rate) == pytest.approx(0.02)
        np.testing.assert_allclose(single(x), y, atol=5e-3)
        assert single(x).dtype == "float32"


@pytest.mark.parametrize("name", ["model.keras", "model.h5"])
def test_policies_layer_by_layer_come_through_a_file_of_keras_3(tmp_path, name):
    keras.config.set_dtype_policy("float32")
    model = keras.Sequential(
        [
            keras.Input((5,)),
            layers.Dense(4, dtype="mixed_bfloat16", name="half"),
            layers.Dense(3, name="whole"),
            layers.Dense(2, dtype="mixed_float16", name="head"),
        ]
    )
    model.compile("sgd", "mse")
    model.save(tmp_path / name)

    loaded = load(tmp_path / name)

    assert mixed_layers(loaded) == {"half": "bfloat16", "head": "float16"}
    with in_float32(loaded) as single:
        assert [layer.compute_dtype for layer in single.layers] == ["float32"] * 3


@pytest.mark.parametrize("weights", ["int8", "int4"])
def test_what_comes_before_quantized_weights_in_mixed_precision_is_trained_in_float32(weights):
    keras.utils.set_random_seed(1)
    keras.config.set_dtype_policy("float32")
    quantized = layers.Dense(3, dtype=f"{weights}_from_mixed_bfloat16", name="quantized")
    model = keras.Sequential(
        [keras.Input((6, 5)), layers.Dense(4, "tanh"), quantized, layers.Flatten(), layers.Dense(2)]
    )
    model.compile("sgd", "mse")
    assert mixed_layers(model) == {"quantized": "bfloat16"}

    with in_float32(model) as single:
        assert single.get_layer("quantized").dtype_policy.name == f"{weights}_from_float32"
        np.testing.assert_array_equal(single.get_layer("quantized")._kernel, quantized._kernel)
        assert check_agreement(single, build(single, batch_size=4).data).passed


class Own(keras.Model):
    def __init__(self, units=3):
        super().__init__()
        self.hidden = layers.Dense(units, activation="relu")
        self.head = layers.Dense(2)

    def call(self, x):
        return self.head(self.hidden(x))


class Stubborn(Own):
    def __init__(self):
        super().__init__()
        self.hidden = layers.Dense(3, dtype="mixed_bfloat16")


def test_a_subclassed_model_is_made_anew_in_float32():
    keras.config.set_dtype_policy("mixed_bfloat16")
    model = Own(4)
    x = np.random.default_rng(0).normal(size=(4, 5)).astype("float32")
    model(x)
    model.compile("sgd", "mse")
    with pytest.raises(UnsupportedModelError, match=r"set_dtype_policy|dtype"), in_float32(model):
        pass
    keras.config.set_dtype_policy("mixed_bfloat16")
    model = Own()
    model(x)
    model.compile("sgd", "mse")
    with in_float32(model) as single:
        assert mixed_layers(single) == {}
        np.testing.assert_allclose(single(x), keras.ops.cast(model(x), "float32"), atol=0.05)


def test_a_layer_that_insists_is_named():
    model = Stubborn()
    model(np.zeros((2, 5), "float32"))
    model.compile("sgd", "mse")
    with pytest.raises(UnsupportedModelError, match=r"computes in bfloat16 whatever the policy is"), in_float32(model):
        pass


def test_explaining_a_model_in_mixed_precision_is_possible():
    model = keras.Sequential([keras.Input((5,)), layers.Dense(2, dtype="mixed_float16", name="head")])
    model.compile("sgd", "mse")
    assert any("head" in name for name in edgefl_converters.explain(model))
