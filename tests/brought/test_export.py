"""Inference files of recurrent layers with dropout or masks and of models that are classes, in every precision."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import layers, ops

import edgefl
from edgefl.errors import UnsupportedModelError
from edgefl_converters.building.building import build
from edgefl_converters.exporting.tflite_files import tflite_bytes
from interpreters import EXPECTED

LIMITS = {"none": 1e-5, "float16": 5e-3, "dynamic": 0.05, "int8": 0.1}


class OwnModel(keras.Model):
    """With arguments that have defaults, of which Keras gives some."""

    def __init__(self, units=6, rate=0.2):
        super().__init__()
        self.first, self.dropout, self.last = layers.GRU(units, dropout=rate), layers.Dropout(rate), layers.Dense(2)

    def call(self, inputs, training=None, *, temperature=1.0):
        return self.last(self.dropout(self.first(inputs, training=training), training=training)) / temperature


class Noise(layers.Layer):
    """Which draws in inference too."""

    def __init__(self):
        super().__init__()
        self.seed_generator = keras.random.SeedGenerator(1)

    def call(self, inputs):
        return inputs + keras.random.normal(ops.shape(inputs), seed=self.seed_generator)


def compiled(model):
    model.compile("sgd", "mse")
    return model


def dropping():
    recurrent = layers.Bidirectional(layers.LSTM(4, dropout=0.2, recurrent_dropout=0.1))
    return compiled(keras.Sequential([keras.Input((4, 3)), recurrent, layers.Dense(2)]))


def masked():
    return compiled(keras.Sequential([keras.Input((4, 3)), layers.Masking(), layers.GRU(8), layers.Dense(2)]))


def own():
    model = OwnModel()
    model(np.zeros((2, 4, 3), np.float32))
    return compiled(model)


@pytest.mark.parametrize("make", [pytest.param(dropping, marks=pytest.mark.slow), masked, own])
def test_what_differs_in_training_only_is_exported_in_every_precision(make, tmp_path):
    keras.utils.set_random_seed(1)
    model = make()
    rows = np.random.default_rng(0).normal(size=(16, 4, 3)).astype(np.float32)
    rows[3:6, 2:] = 0.0
    (tmp_path / "model.tflite").write_bytes(build(model, batch_size=2).data)
    for quantize, limit in LIMITS.items():
        result = edgefl.export(
            tmp_path / "model.tflite",
            None,
            tmp_path / "out.tflite",
            base=model,
            quantize=quantize,
            calibration=rows if quantize == "int8" else None,
        )
        runtimes = result.report["agreement"]["runtimes"]
        assert {each["name"] for each in runtimes if each["ran"]} == set(EXPECTED)
        for each in runtimes:
            [off] = each["outputs"].values()
            assert off["largest"] <= limit, (quantize, each)


def test_a_model_that_draws_in_inference_is_refused_with_that_reason():
    model = compiled(keras.Sequential([keras.Input((3,)), Noise(), layers.Dense(2)]))
    manifest = build(compiled(keras.Sequential([keras.Input((3,)), layers.Dense(2)])), batch_size=2).manifest
    with pytest.raises(UnsupportedModelError, match=r"draws random numbers also in inference.*noise"):
        tflite_bytes(model, manifest, "none", None)
