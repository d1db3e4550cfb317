"""A model that fails is shrunk to the layer that fails on its own."""

from __future__ import annotations

import keras
import pytest
from keras import layers

import edgefl
import keras_models
from edgefl.cli.main import main
from edgefl.errors import UnsupportedModelError
from edgefl_converters.blame.shrinking import shrink
from edgefl_converters.emission.registry import LOWERINGS


class Decomposing(layers.Layer):
    """Uses an op that no runtime has."""

    def __init__(self, rows=1, **options):
        super().__init__(**options)
        self.rows = rows

    def get_config(self):
        return {**super().get_config(), "rows": self.rows}

    def build(self, shape):
        self.weight = self.add_weight(shape=(shape[-1], shape[-1]), initializer="identity")

    def call(self, x):
        import tensorflow as tf

        return x @ tf.linalg.cholesky(self.weight)


def holds(kind):
    return lambda model: ValueError(kind) if any(type(each).__name__ == kind for each in model.layers) else None


def test_the_layer_is_found_in_a_nested_model_with_what_is_not_default_of_it():
    inner = keras.Sequential([keras.Input((8, 8, 2)), layers.Conv2D(4, 3, strides=2, padding="same")])
    image = keras.Input((8, 8, 2))
    model = keras.Model(image, layers.Dense(1)(layers.Flatten()(inner(image))))

    piece = shrink(model, holds("Conv2D"))

    assert piece.kind == "Conv2D"
    assert "strides=(2, 2), padding='same'" in piece.configuration
    assert "dilation" not in piece.configuration


def test_layers_with_several_inputs_stand_alone():
    left, right = keras.Input((3,)), keras.Input((3,))
    model = keras.Model([left, right], layers.Multiply(name="product")([left, right]))
    assert shrink(model, holds("Multiply")).name == "product"


def test_nothing_is_found_when_no_layer_fails_or_time_is_over():
    model = keras_models.mlp()
    assert shrink(model, lambda small: None) is None
    times = iter([0.0, 10.0])
    assert shrink(model, holds("Dense"), seconds=5, clock=lambda: next(times)) is None


def test_the_error_names_layer_op_configuration_and_what_to_do(tmp_path):
    model = keras.Sequential([keras.Input((3,)), layers.Dense(3), Decomposing(rows=2, name="strange")])
    model.compile("sgd", "mse")
    with pytest.raises(UnsupportedModelError, match=r"Cholesky.*layer 'strange' \(Decomposing\) with rows=2") as told:
        edgefl.convert(model, tmp_path / "m.tflite", batch_size=4)
    assert "linear algebra" in told.value.hint
    assert list(tmp_path.iterdir()) == []


def test_a_wrong_lowering_ends_the_command_with_one_line_and_no_file(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    keras_models.mlp().save("model.keras")
    monkeypatch.setitem(LOWERINGS, "ReluGrad", lambda op, inputs, context: [inputs[0]])
    with pytest.raises(SystemExit) as ended:
        main(["convert", "model.keras", "-o", "m.tflite", "--batch-size", "4"])
    assert ended.value.code == 12
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("edgefl:")]
    assert len(lines) == 1
    assert "It fails on its own too: layer 'dense" in lines[0]
    assert "activation='relu'" in lines[0]
    assert [each.name for each in tmp_path.iterdir()] == ["model.keras"]
