"""What a built model file does, beside Keras: partial batches, sums, state, frozen weights, seeds, equal bytes."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
from ai_edge_litert.interpreter import Interpreter
from keras import layers

from edgefl.errors import InvalidSettingError, ModelError, UnsupportedModelError
from edgefl.model_file import ModelFile
from edgefl_converters.building.building import build
from edgefl_converters.emission.registry import LOWERINGS

BATCH = 8


class Running:
    """A built model in an interpreter, called by the manifest's names."""

    def __init__(self, built):
        self.manifest = built.manifest
        self._interpreter = Interpreter(model_content=built.data, num_threads=1)

    def __call__(self, signature, **given):
        spec = self.manifest.signatures[signature]
        assert set(given) == {each.name for each in spec.inputs}
        runner = self._interpreter.get_signature_runner(signature)
        outputs = runner(**{each.tensor: np.asarray(given[each.name], each.dtype) for each in spec.inputs})
        return {each.name: outputs[each.tensor] for each in spec.outputs}

    def train(self, x, y, weights=None, rate=None, **more):
        """A step on up to a batch of rows, padded as a trainer pads them."""
        rows = len(x)
        weights = np.ones(rows) if weights is None else np.asarray(weights)
        return self(
            "train",
            input_layer=pad(x),
            y=pad(y),
            sample_weight=pad(weights * BATCH / rows),
            learning_rate=[self.manifest.learning_rate if rate is None else rate],
            **more,
        )

    def evaluate(self, x, y, weights=None):
        weights = np.ones(len(x)) if weights is None else weights
        return self("evaluate", input_layer=pad(x), y=pad(y), sample_weight=pad(weights))


def pad(rows):
    rows = np.asarray(rows)
    return np.concatenate([rows, np.zeros((BATCH - len(rows), *rows.shape[1:]), rows.dtype)])


def distance(running, model):
    """Largest difference between a file's weights and a Keras model's."""
    ours = running("get_weights")
    pairs = zip(running.manifest.parameters, model.get_weights(), strict=True)
    return max(np.abs(ours[parameter.name] - value).max() for parameter, value in pairs)


def rows(count, seed=0, features=6, classes=3):
    random = np.random.default_rng(seed)
    return random.normal(size=(count, features)).astype(np.float32), random.integers(0, classes, count).astype(np.int32)


def make_plain():
    keras.utils.set_random_seed(3)
    model = keras.Sequential(
        [
            keras.Input((6,)),
            # Without a bias: the converter loses the Relu of such a layer unless the walk takes care.
            layers.Dense(16, use_bias=False, activation="relu"),
            layers.Dense(12, use_bias=False, activation="relu6", kernel_regularizer="l2"),
            layers.Dense(3, activation="softmax"),
        ]
    )
    model.compile(
        keras.optimizers.SGD(0.1, momentum=0.9),
        "sparse_categorical_crossentropy",
        metrics=["accuracy"],
        weighted_metrics=["accuracy"],
    )
    return model


@pytest.fixture(scope="module")
def plain():
    model = make_plain()
    return model, build(model, batch_size=BATCH)


@pytest.fixture
def fresh(plain):
    """A Keras model and a running file with the same weights, both untrained."""
    model = make_plain()
    assert all(np.array_equal(a, b) for a, b in zip(model.get_weights(), plain[0].get_weights(), strict=True))
    return model, Running(plain[1])


def test_a_relu_after_a_product_without_bias_is_kept(fresh):
    model, running = fresh
    x, y = rows(BATCH)
    assert running("infer", input_layer=x)["dense_2"] == pytest.approx(model.predict(x, verbose=0), abs=1e-6)
    for _ in range(5):
        expected = model.train_on_batch(x, y, return_dict=True)
        got = running.train(x, y)
    assert expected["loss"] > 0
    assert distance(running, model) < 1e-6
    assert got["loss"] < 2.0


def test_three_rows_of_eight_train_as_a_batch_of_three(fresh):
    model, running = fresh
    x, y = rows(3)
    for _ in range(3):
        model.train_on_batch(x, y)
        running.train(x, y)
    assert distance(running, model) < 1e-6


def test_what_pads_a_batch_does_not_matter(plain):
    x, y = rows(3)
    results = []
    for filler in (0.0, 1000.0):
        running = Running(plain[1])
        padded = pad(x)
        padded[3:] = filler
        weight = pad(np.full(3, BATCH / 3))
        running("train", input_layer=padded, y=pad(y), sample_weight=weight, learning_rate=[0.1])
        results.append(running("get_weights"))
    assert all(results[0][name] == pytest.approx(results[1][name], abs=1e-7) for name in results[0])


def test_users_weights_multiply_the_rows(fresh):
    model, running = fresh
    x, y = rows(5)
    weights = np.asarray([0.5, 2.0, 1.0, 3.0, 0.25], np.float32)
    model.train_on_batch(x, y, sample_weight=weights)
    running.train(x, y, weights)
    assert distance(running, model) < 1e-6


def test_the_learning_rate_is_the_one_of_the_step(fresh):
    model, running = fresh
    x, y = rows(BATCH)
    model.optimizer.learning_rate = 0.025
    model.train_on_batch(x, y)
    running.train(x, y, rate=0.025)
    assert distance(running, model) < 1e-6


def test_evaluation_adds_up_over_partial_batches(fresh):
    model, running = fresh
    x, y = rows(11)
    weights = np.linspace(0.1, 2.0, 11).astype(np.float32)
    first, second = running.evaluate(x[:8], y[:8], weights[:8]), running.evaluate(x[8:], y[8:], weights[8:])
    total = {name: first[name] + second[name] for name in first}
    expected = model.evaluate(x, y, sample_weight=weights, batch_size=11, verbose=0, return_dict=True)
    assert total["rows"] == 11
    assert total["loss_sum"] / 11 == pytest.approx(expected["loss"], rel=1e-5)
    for metric in running.manifest.metrics:
        assert metric.finaliser == "mean"
        value = total[metric.states[0]] / total[metric.states[1]]
        assert value == pytest.approx(expected[metric.name], rel=1e-5), metric.name
    assert {metric.name for metric in running.manifest.metrics} == {"accuracy", "weighted_accuracy"}


def test_training_reports_the_loss_and_metrics_of_the_real_rows(fresh):
    model, running = fresh
    x, y = rows(5)
    got = running.train(x, y)
    expected = model.train_on_batch(x, y, return_dict=True)
    assert got["loss"] == pytest.approx(expected["loss"], rel=1e-5)
    assert got["accuracy/total"] / got["accuracy/count"] == pytest.approx(expected["accuracy"])
    assert got["accuracy/count"] == 5


def test_a_row_of_no_weight_counts_as_a_row(fresh):
    _, running = fresh
    x, y = rows(4)
    tiny = np.finfo(np.float32).tiny
    assert running.evaluate(x, y, [1, tiny, 1, 1])["rows"] == 4


def test_state_comes_back_exactly(fresh):
    _, running = fresh
    x, y = rows(BATCH)
    running.train(x, y)
    state = running("get_state")
    losses = [running.train(x, y)["loss"] for _ in range(3)]
    running("set_state", **state)
    assert [running.train(x, y)["loss"] for _ in range(3)] == losses
    assert {each.name for each in running.manifest.state} <= set(state)
    assert "optimizer/dense/kernel/momentum" in state


def test_resetting_the_optimizer_leaves_the_weights(fresh):
    _, running = fresh
    x, y = rows(BATCH)
    running.train(x, y)
    before = running("get_state")
    running("reset_optimizer")
    after = running("get_state")
    for each in running.manifest.state:
        assert np.any(before[each.name] != 0)
        assert not after[each.name].any()
    for each in running.manifest.parameters:
        assert np.array_equal(before[each.name], after[each.name])


def test_weights_go_in_and_come_out(fresh):
    _, running = fresh
    given = {
        name: np.random.default_rng(1).normal(size=value.shape).astype(np.float32)
        for name, value in running("get_weights").items()
    }
    running("set_weights", **given)
    assert all(np.array_equal(value, given[name]) for name, value in running("get_weights").items())


def test_the_file_holds_the_keras_weights_in_buffers_of_their_own(plain):
    model, built = plain
    file = ModelFile(built.data)
    file.verify()
    assert file.manifest == built.manifest
    for parameter, value in zip(built.manifest.parameters, model.weights, strict=True):
        assert np.array_equal(file.initial_value(parameter), value.numpy())
        assert parameter.keras_path.endswith(value.name)
        assert built.paths[parameter.name] == value.path
    buffers = [parameter.buffer for parameter in built.manifest.parameters]
    assert len(set(buffers)) == len(buffers)


def test_nothing_goes_in_without_dimensions(plain):
    for signature in plain[1].manifest.signatures.values():
        assert all(each.shape for each in signature.inputs)


def test_the_report_names_layers_and_what_was_lowered(plain):
    model, built = plain
    assert built.layers[f"layer {model.layers[0].name!r} (Dense)"].lowered["MatMul"] >= 3
    assert "AssignVariableOp" in built.layers["the optimizer"].kept


def test_without_its_lowering_the_converter_loses_that_relu(monkeypatch):
    # When this fails the converter has been repaired, and lowerings/matmul.py can say so.
    monkeypatch.delitem(LOWERINGS, "MatMul")
    model = make_plain()
    running = Running(build(model, batch_size=BATCH))
    x, _ = rows(BATCH)
    (output,) = running("infer", input_layer=x).values()
    assert np.abs(output - model.predict(x, verbose=0)).max() > 0.01


def make_mixed():
    keras.utils.set_random_seed(4)
    base = keras.Sequential(
        [
            keras.Input((6,)),
            layers.Dense(8, activation="tanh", name="frozen"),
            layers.BatchNormalization(name="frozen_bn"),
        ],
        name="base",
    )
    base.trainable = False
    model = keras.Sequential(
        [
            keras.Input((6,)),
            base,
            layers.BatchNormalization(),
            layers.Dropout(0.4),
            layers.Dense(8, activation="elu"),
            layers.GaussianNoise(0.1),
            layers.Dense(3, activation="softmax"),
        ]
    )
    model.compile(keras.optimizers.Adam(0.01), "sparse_categorical_crossentropy")
    return model


@pytest.fixture(scope="module")
def mixed():
    return make_mixed(), build(make_mixed(), batch_size=BATCH)


def test_frozen_weights_are_constants_and_moving_averages_statistics(mixed):
    manifest = mixed[1].manifest
    roles = {each.name: each.role for each in manifest.parameters}
    assert roles["batch_normalization/moving_mean"] == "statistic"
    assert roles["batch_normalization/gamma"] == "weight"
    assert not any("frozen" in name for name in roles)
    assert len(manifest.frozen) == 6
    assert manifest.mixes_rows
    assert not any("seed" in each.name for each in manifest.state)


def test_the_same_seed_repeats_a_step_and_another_does_not(mixed):
    x, y = rows(BATCH)
    losses = [Running(mixed[1]).train(x, y, seed=[seed])["loss"] for seed in (5, 5, 6)]
    assert losses[0] == losses[1]
    assert losses[0] != losses[2]


def test_statistics_move_as_in_keras(mixed):
    model, running = make_mixed(), Running(mixed[1])
    x, y = rows(BATCH)
    model.train_on_batch(x, y)
    running.train(x, y, seed=[1])
    got = running("get_weights")
    for name in ("moving_mean", "moving_variance"):
        (expected,) = (each.numpy() for each in model.layers[1].weights if each.name == name)
        assert got[f"batch_normalization/{name}"] == pytest.approx(expected, abs=1e-6)


def test_inference_draws_nothing_and_uses_the_moving_averages(mixed):
    model, running = mixed[0], Running(mixed[1])
    x, _ = rows(BATCH)
    (output,) = running("infer", input_layer=x).values()
    assert output == pytest.approx(model.predict(x, verbose=0), abs=1e-6)


_MAKE = """
def make():
    keras.utils.set_random_seed(7)
    branch = keras.Sequential([layers.Dense(4), layers.ReLU()])
    x = given = keras.Input((3, 3))
    x = layers.Bidirectional(layers.GRU(3, return_sequences=True))(branch(x))
    heads = [layers.Dense(2)(layers.Flatten()(x)), layers.Dense(1)(layers.GlobalMaxPooling1D()(x))]
    model = keras.Model(given, heads)
    model.compile("adam", {name: "mse" for name in model.output_names}, metrics=["mae", "mse"])
    return model

def digest(model):
    return hashlib.sha256(build(model, batch_size=8).data).hexdigest()
"""
_ELSEWHERE = f"""
import hashlib, sys, keras
from keras import layers
from edgefl_converters.building.building import build
{_MAKE}
print(digest(make()))
print(digest(keras.models.load_model(sys.argv[1])))
"""


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory):
    """A saved model; what another process, whose sets have another order, makes of `_MAKE`, and then of that model."""
    path = tmp_path_factory.mktemp("elsewhere") / "model.keras"
    make_plain().save(path)
    done = subprocess.run(
        [sys.executable, "-c", _ELSEWHERE, str(path)],
        capture_output=True,
        text=True,
        check=True,
        timeout=300,
        env={**os.environ, "PYTHONHASHSEED": "17" if os.environ.get("PYTHONHASHSEED") != "17" else "18"},
    )
    return path, *done.stdout.split()[-2:]


def test_the_same_model_gives_the_same_bytes_in_another_process(elsewhere):
    path, _, digest = elsewhere
    assert hashlib.sha256(build(keras.models.load_model(path), batch_size=BATCH).data).hexdigest() == digest


def test_a_model_that_is_built_again_gives_the_same_bytes_whatever_numbers_keras_gave_its_names(plain, elsewhere):
    # Elsewhere it was the first conversion, here there is one before.
    given = {"hashlib": hashlib, "keras": keras, "layers": layers, "build": build}
    exec(_MAKE, given)
    keras.backend.clear_session()  # numbers begin again
    for _ in range(3):
        given["make"]()  # then come dense_9, dense_10 and dense_11, which stand otherwise where names are sorted
    assert given["digest"](given["make"]()) == elsewhere[1]


def test_parameters_have_the_same_names_whatever_was_built_before(plain):
    manifest = plain[1].manifest
    assert [each.name for each in manifest.parameters] == [
        "dense/kernel",
        "dense_1/kernel",
        "dense_2/kernel",
        "dense_2/bias",
    ]


def test_converting_leaves_the_keras_model_alone():
    model = make_plain()
    before = [value.copy() for value in model.get_weights()]
    build(model, batch_size=BATCH)
    assert all(np.array_equal(a, b) for a, b in zip(before, model.get_weights(), strict=True))
    assert int(model.optimizer.iterations) == 0
    model.fit(*rows(4), verbose=0)


def test_a_batch_size_below_one_is_refused():
    with pytest.raises(InvalidSettingError, match="at least 1, got 0"):
        build(make_plain(), batch_size=0)


def test_a_model_that_is_not_compiled_is_refused():
    with pytest.raises(ModelError, match="not compiled"):
        build(keras.Sequential([keras.Input((2,)), layers.Dense(1)]))


def test_an_input_of_unknown_length_is_refused():
    model = keras.Sequential([keras.Input((None, 3)), layers.Conv1D(2, 3), layers.GlobalAveragePooling1D()])
    model.compile("sgd", "mse")
    with pytest.raises(UnsupportedModelError, match=r"\(None, None, 3\)"):
        build(model)


class Bessel(layers.Layer):
    """A layer with an op that has no builtin form."""

    def call(self, inputs):
        return tf.math.bessel_i0(inputs)


def test_an_op_without_builtin_form_is_named_with_its_layer():
    model = keras.Sequential([keras.Input((4,)), layers.Dense(4), Bessel(name="strange")])
    model.compile("sgd", "mse")
    with pytest.raises(UnsupportedModelError, match=r"'strange' \(Bessel\): BesselI[01]"):
        build(model)


class Branching(layers.Layer):
    """Both branches keep something for the gradient; the second returns what it keeps."""

    def call(self, inputs):
        return tf.cond(tf.reduce_sum(inputs) > 0, lambda: tf.nn.relu(inputs) * 2.0, lambda: tf.nn.relu(-inputs))


def test_branches_are_taken_as_in_keras_with_their_gradients():
    def make():
        keras.utils.set_random_seed(5)
        model = keras.Sequential(
            [keras.Input((6,)), layers.Dense(5), Branching(), layers.Dense(3, activation="softmax")]
        )
        optimizer = keras.optimizers.SGD(0.1, use_ema=True, ema_momentum=0.5, ema_overwrite_frequency=2)
        model.compile(optimizer, "sparse_categorical_crossentropy")
        return model

    model, running = make(), Running(build(make(), batch_size=BATCH))
    taken = set()
    for seed in range(6):
        x, y = rows(BATCH, seed)
        taken.add(bool(np.sum(model.layers[0](x)) > 0))
        model.train_on_batch(x, y)
        running.train(x, y)
    assert taken == {True, False}
    assert distance(running, model) < 1e-6
