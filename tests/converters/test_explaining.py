"""``edgefl convert --explain``: what each layer was lowered to, also where the conversion fails."""

from __future__ import annotations

import json

import keras
import pytest
from keras import layers

import edgefl_converters
import keras_models
from edgefl.cli.main import main
from edgefl.errors import UnsupportedModelError


class UsingInverse(layers.Layer):
    """Uses an op that no runtime has."""

    def build(self, shape):
        self.weight = self.add_weight(shape=(shape[-1], shape[-1]))

    def call(self, x):
        import tensorflow as tf

        return x @ tf.linalg.cholesky(self.weight)


def test_every_layer_is_listed_with_its_ops_before_and_after():
    model = keras_models.cnn()
    model.layers[0].trainable = False
    model.compile("sgd", "sparse_categorical_crossentropy")

    told = edgefl_converters.explain(model, batch_size=4)

    by_class = {maker.split("(")[-1].rstrip(")"): layer for maker, layer in told.items() if maker.startswith("layer")}
    pool = next(layer for maker, layer in told.items() if "(MaxPooling2D)" in maker)
    assert "MaxPoolGrad" not in pool["kept"]
    assert pool["builtin"]
    assert by_class["Dense"]["training"] == "trained"
    assert by_class["Dense"]["parameters"] == model.layers[-1].count_params()
    assert by_class["Dense"]["builtin"]["BATCH_MATMUL"] >= 1
    first = next(layer for maker, layer in told.items() if maker.startswith(f"layer {model.layers[0].name!r}"))
    assert first["training"] == "frozen"
    assert "the optimizer" in told


def test_on_failure_the_layers_until_then_are_told():
    model = keras.Sequential([keras.Input((3,)), layers.Dense(3, name="before"), UsingInverse()])
    model.compile("sgd", "mse")
    told = {}
    with pytest.raises(UnsupportedModelError, match="Cholesky"):
        edgefl_converters.explain(model, on_layers=told.update)
    assert told["layer 'before' (Dense)"]["parameters"] == 12
    assert told["layer 'before' (Dense)"]["lowered"]


def test_the_command_lists_layers_and_writes_nothing(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    keras_models.mlp().save("model.keras")
    with pytest.raises(SystemExit) as ended:
        main(["convert", "model.keras", "--explain", "--format", "json"])
    assert ended.value.code == 0
    document = json.loads(capsys.readouterr().out)
    assert document["converted"]
    assert any("(Dense)" in maker for maker in document["layers"])
    with pytest.raises(SystemExit) as ended:
        main(["convert", "model.keras", "--explain"])
    assert ended.value.code == 0
    printed = capsys.readouterr().out
    assert "(Dense): 56 values, trained" in printed
    assert "BATCH_MATMUL" in printed
    assert [each.name for each in tmp_path.iterdir()] == ["model.keras"]


def test_without_a_place_to_write_and_without_explain_the_command_says_what_is_missing(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["convert", "model.keras"])
    assert ended.value.code == 4
    assert "-o model.tflite" in capsys.readouterr().err
