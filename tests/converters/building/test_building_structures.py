"""Models with several inputs and outputs, shared layers, lookups, and losses and metrics for each output."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter
from keras import layers

from edgefl_converters.building.building import build

BATCH = 8


def call(built, signature, given):
    spec = built.manifest.signatures[signature]
    runner = Interpreter(model_content=built.data).get_signature_runner(signature)
    outputs = runner(**{each.tensor: np.asarray(given[each.name], each.dtype) for each in spec.inputs})
    return {each.name: outputs[each.tensor] for each in spec.outputs}


@pytest.fixture(scope="module")
def two_towers():
    keras.utils.set_random_seed(7)
    words, numbers = keras.Input((5,), dtype="int32", name="words"), keras.Input((3,), name="y")
    table = layers.Embedding(20, 4, name="table")
    shared = layers.Dense(4, activation="tanh")
    left = shared(layers.GlobalAveragePooling1D()(table(words)))
    both = layers.Concatenate()([left, shared(layers.Dense(4)(numbers))])
    outputs = {
        "kind": layers.Dense(3, activation="softmax", name="kind")(both),
        "amount": layers.Dense(1, name="amount", activity_regularizer="l2")(both),
    }
    model = keras.Model({"words": words, "y": numbers}, outputs)
    model.compile(
        keras.optimizers.SGD(0.1),
        loss={"kind": "sparse_categorical_crossentropy", "amount": "mse"},
        loss_weights={"kind": 1.0, "amount": 0.5},
        metrics={"kind": ["accuracy"], "amount": ["mae"]},
    )
    return model, build(model, batch_size=BATCH)


@pytest.fixture(scope="module")
def data():
    random = np.random.default_rng(0)
    inputs = {
        "words": random.integers(0, 20, (BATCH, 5)).astype(np.int32),
        "y": random.normal(size=(BATCH, 3)).astype(np.float32),
    }
    targets = {
        "kind": random.integers(0, 3, BATCH).astype(np.int32),
        "amount": random.normal(size=(BATCH, 1)).astype(np.float32),
    }
    return inputs, targets


def test_names_tell_inputs_targets_and_outputs_apart(two_towers):
    manifest = two_towers[1].manifest
    assert manifest.inputs == ("words", "y")
    assert set(manifest.outputs) == {"kind", "amount"}
    assert {each.name: (each.output, each.classes) for each in manifest.targets} == {
        "y_kind": ("kind", 3),
        "y_amount": ("amount", None),
    }


def test_the_loss_and_every_metric_are_those_of_keras(two_towers, data):
    model, built = two_towers
    inputs, targets = data
    named = {f"y_{name}": value for name, value in targets.items()}
    got = call(built, "evaluate", {**inputs, **named, "sample_weight": np.ones(BATCH)})
    expected = model.evaluate(inputs, targets, batch_size=BATCH, verbose=0, return_dict=True)
    assert got["loss_sum"] / got["rows"] == pytest.approx(expected["loss"], rel=1e-5)
    assert {each.name for each in built.manifest.metrics} == {"kind_accuracy", "amount_mae"}
    for metric in built.manifest.metrics:
        total, count = (got[state] for state in metric.states)
        assert total / count == pytest.approx(expected[metric.name], rel=1e-5)


def test_a_step_moves_shared_layers_and_looked_up_rows_as_keras_does(two_towers, data):
    model, built = two_towers
    inputs, targets = data
    interpreter = Interpreter(model_content=built.data)
    spec = built.manifest.signatures["train"]
    given = {**inputs, **{f"y_{name}": value for name, value in targets.items()}}
    given |= {"sample_weight": np.ones(BATCH), "learning_rate": [0.1]}
    before = model.get_weights()
    model.train_on_batch(inputs, targets)
    interpreter.get_signature_runner("train")(
        **{each.tensor: np.asarray(given[each.name], each.dtype) for each in spec.inputs}
    )
    got = interpreter.get_signature_runner("get_weights")()
    for each, old, new in zip(
        built.manifest.signatures["get_weights"].outputs, before, model.get_weights(), strict=True
    ):
        assert got[each.tensor] == pytest.approx(new, abs=1e-6), each.name
        assert np.any(old != new), each.name


def test_a_subclassed_model_converts_after_it_was_called():
    class Twice(keras.Model):
        def __init__(self):
            super().__init__()
            self.inner, self.outer = layers.Dense(4, activation="relu"), layers.Dense(2)

        def call(self, inputs, training=False):
            return self.outer(self.inner(inputs) + self.inner(2.0 * inputs))

    model = Twice()
    x = np.random.default_rng(1).normal(size=(BATCH, 3)).astype(np.float32)
    model(x)
    model.compile("sgd", "mse")
    built = build(model, batch_size=BATCH)
    (output,) = call(built, "infer", {"x": x}).values()
    assert output == pytest.approx(model.predict(x, verbose=0), abs=1e-6)


def test_labels_for_every_step_of_a_sequence_are_one_target():
    keras.utils.set_random_seed(8)
    model = keras.Sequential(
        [
            keras.Input((6,), dtype="int32"),
            layers.Embedding(9, 4, mask_zero=True),
            layers.Dense(3, activation="softmax"),
        ]
    )
    model.compile("sgd", "sparse_categorical_crossentropy", metrics=["accuracy"])
    built = build(model, batch_size=BATCH)
    random = np.random.default_rng(2)
    x, y = random.integers(0, 9, (BATCH, 6)), random.integers(0, 3, (BATCH, 6))
    got = call(built, "evaluate", {"input_layer": x, "y": y, "sample_weight": np.ones(BATCH)})
    expected = model.evaluate(x, y, batch_size=BATCH, verbose=0, return_dict=True)
    assert got["loss_sum"] / BATCH == pytest.approx(expected["loss"], rel=1e-5)
    assert got["accuracy/total"] / got["accuracy/count"] == pytest.approx(expected["accuracy"], rel=1e-5)


def test_layers_that_repeat_and_cut_train_as_in_keras():
    keras.utils.set_random_seed(9)
    model = keras.Sequential(
        [
            keras.Input((6, 6, 2)),
            layers.Conv2D(3, 3, padding="same", activation="relu"),
            layers.UpSampling2D(),
            layers.ZeroPadding2D(1),
            layers.Cropping2D(((1, 2), (0, 1))),
            layers.SeparableConv2D(2, 3, strides=2, activation="gelu"),
            layers.AveragePooling2D(2, 1),
        ]
    )
    model.compile(keras.optimizers.SGD(0.1), "mse")
    built = build(model, batch_size=BATCH)
    random = np.random.default_rng(4)
    x = random.normal(size=(BATCH, 6, 6, 2)).astype(np.float32)
    y = random.normal(size=(BATCH, *model.output_shape[1:])).astype(np.float32)
    interpreter = Interpreter(model_content=built.data)
    train = interpreter.get_signature_runner("train")
    for _ in range(3):
        model.train_on_batch(x, y)
        train(input_layer=x, y=y, sample_weight=np.ones(BATCH, np.float32), learning_rate=np.asarray([0.1], np.float32))
    got = interpreter.get_signature_runner("get_weights")()
    for each, expected in zip(built.manifest.signatures["get_weights"].outputs, model.get_weights(), strict=True):
        assert got[each.tensor] == pytest.approx(expected, abs=1e-6), each.name


def test_a_gradient_passes_through_frozen_layers():
    keras.utils.set_random_seed(10)
    model = keras.Sequential(
        [
            keras.Input((8, 8, 2)),
            layers.Conv2D(3, 3, activation="relu"),
            layers.Conv2D(4, 3, strides=2, use_bias=False, trainable=False),
            layers.BatchNormalization(trainable=False),
            layers.DepthwiseConv2D(2, activation="relu6", trainable=False),
            layers.GlobalAveragePooling2D(),
            layers.Dense(3, activation="softmax"),
        ]
    )
    model.compile(keras.optimizers.Adam(0.01), "sparse_categorical_crossentropy")
    built = build(model, batch_size=BATCH)
    assert not built.manifest.mixes_rows
    random = np.random.default_rng(5)
    x, y = random.normal(size=(BATCH, 8, 8, 2)).astype(np.float32), random.integers(0, 3, BATCH).astype(np.int32)
    interpreter = Interpreter(model_content=built.data)
    train = interpreter.get_signature_runner("train")
    before = {each.path: each.numpy() for each in model.weights}
    for _ in range(3):
        model.train_on_batch(x, y)
        train(
            input_layer=x, y=y, sample_weight=np.ones(BATCH, np.float32), learning_rate=np.asarray([0.01], np.float32)
        )
    got = interpreter.get_signature_runner("get_weights")()
    weights = {each.path: each.numpy() for each in model.weights}
    specs = built.manifest.signatures["get_weights"].outputs
    for parameter, spec in zip(built.manifest.parameters, specs, strict=True):
        path = built.paths[parameter.name]
        expected = weights[path]
        assert np.any(expected != before[path])
        assert got[spec.tensor] == pytest.approx(expected, abs=1e-5), parameter.name
    assert len(built.manifest.frozen) == len(weights) - len(built.manifest.parameters) == 7
