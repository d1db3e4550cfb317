"""The converter's promise: on both runtimes a file trains as its Keras model does, and what does not is caught."""

from __future__ import annotations

import itertools

import flatbuffers
import keras
import numpy as np
import pytest
from tensorflow.lite.python import schema_py_generated as schema

import keras_models
from edgefl.errors import VerificationError
from edgefl_converters.building.building import build
from edgefl_converters.emission.registry import LOWERINGS
from edgefl_converters.verification.agreement import check_agreement
from edgefl_converters.verification.runtimes import Call, installed_runtimes
from interpreters import EXPECTED

BATCH = keras_models.BATCH
OPTIMIZERS = {
    "sgd": lambda: keras.optimizers.SGD(0.05),
    "momentum": lambda: keras.optimizers.SGD(0.05, momentum=0.9),
    "adam": lambda: keras.optimizers.Adam(0.01),
}


def test_both_runtimes_are_installed_here():
    assert [runtime.name for runtime in installed_runtimes()] == list(EXPECTED)


FAST = {("mlp", "momentum"), ("cnn", "sgd"), ("conv1d", "adam")}
"""Each architecture and each optimizer once."""


@pytest.mark.parametrize(
    ("architecture", "optimizer"),
    [
        pytest.param(*pair, marks=[] if pair in FAST else pytest.mark.slow)
        for pair in itertools.product(["mlp", "cnn", "conv1d"], OPTIMIZERS)
    ],
)
def test_a_model_trains_as_in_keras_on_both_runtimes(architecture, optimizer):
    model = getattr(keras_models, architecture)(OPTIMIZERS[optimizer]())
    built = build(model, batch_size=BATCH)

    report = check_agreement(model, built.data)

    report.require()
    assert report.reference.endswith("float64")
    assert report.partial_rows == 3
    assert report.learning_rate != built.manifest.learning_rate  # which is an input, not a constant
    assert [runtime.ran for runtime in report.runtimes] == [True] * len(EXPECTED)
    parameters = {parameter.name for parameter in built.manifest.parameters}
    for runtime in report.runtimes:
        compared = {kind: {each.name for each in runtime.comparisons if each.kind == kind} for kind in KINDS}
        for kind in ("gradient", "partial batch"):
            # An adaptive optimizer shows the gradient in its slots.
            assert {_parameter(name, parameters) for name in compared[kind]} == parameters
        assert compared["training"] == parameters
        assert len(compared["loss"]) == 2 * (report.steps + 1)  # loss and accuracy; of the partial batch too
        assert compared["evaluate"] == {"loss", "accuracy"}


KINDS = ("gradient", "partial batch", "training", "loss", "evaluate", "infer", "counter")


def _parameter(name: str, parameters: set[str]) -> str:
    own = name.removeprefix("optimizer/")
    return next(parameter for parameter in parameters if f"{own}/".startswith(f"{parameter}/"))


@pytest.fixture(scope="module")
def plain():
    """A model, and the file made from it."""
    return keras_models.mlp(), keras_models.built("mlp")


def test_three_rows_in_a_batch_of_eight_give_the_gradient_of_those_three(plain, tmp_path):
    """Against Keras directly, without the verification's own bookkeeping."""
    _, built = plain
    model = keras_models.mlp(keras.optimizers.SGD(1.0))
    generator = np.random.default_rng(5)
    x, y = generator.normal(size=(BATCH, 6)).astype(np.float32), generator.integers(0, 4, BATCH).astype(np.int32)
    before = [np.array(variable) for variable in model.variables]
    model.train_on_batch(x[:3], y[:3])
    expected = [np.array(variable) - old for variable, old in zip(model.variables, before, strict=True)]
    weight = np.zeros(BATCH, np.float32)
    weight[:3] = BATCH / 3
    given = {"sample_weight": weight, "learning_rate": np.ones(1, np.float32), "y": y, built.manifest.inputs[0]: x}
    tensors = {spec.name: spec.tensor for spec in built.manifest.signatures["train"].inputs}
    train = Call("train", {tensors[name]: array for name, array in given.items()})
    path = tmp_path / "model.tflite"
    path.write_bytes(built.data)

    for runtime in installed_runtimes():
        start, _, end = runtime.run(path, [Call("get_weights"), train, Call("get_weights")])
        keys = [spec.tensor for spec in built.manifest.signatures["get_weights"].outputs]
        for key, moved in zip(keys, expected, strict=True):
            np.testing.assert_allclose(end[key] - start[key], moved, atol=1e-6)


def test_models_that_draw_random_numbers_are_compared_bit_for_bit():
    layers = keras.layers
    stack = [keras.Input((6,)), layers.Dense(16, activation="tanh"), layers.Dropout(0.4), layers.GaussianNoise(0.2)]
    model = keras_models.classifier([*stack, layers.Dense(4, activation="softmax")])
    built = build(model, batch_size=BATCH)
    assert built.manifest.draws_random_numbers

    check_agreement(model, built.data).require()


def test_batch_normalisation_moves_its_statistics_as_in_keras_and_rows_are_not_padded():
    layers = keras.layers
    stack = [keras.Input((6,)), layers.Dense(8), layers.BatchNormalization(), layers.ReLU()]
    model = keras_models.classifier([*stack, layers.Dense(4, activation="softmax")], "adam")
    built = build(model, batch_size=BATCH)

    report = check_agreement(model, built.data)

    report.require()
    assert report.partial_rows is None
    moved = {each.name for each in report.runtimes[0].comparisons if each.kind == "training"}
    assert {"batch_normalization/moving_mean", "batch_normalization/moving_variance"} <= moved


@pytest.mark.parametrize(
    ("op_type", "damage", "architecture", "named"),
    [
        ("ReluGrad", lambda op, inputs, outputs: [inputs[0]], "mlp", "dense/"),
        ("Conv2DBackpropFilter", lambda op, inputs, outputs: [outputs[0][::-1]], "cnn", "conv2d"),
        ("MaxPoolGrad", lambda op, inputs, outputs: [outputs[0] * 1.001], "cnn", "conv2d/"),
    ],
)
def test_a_wrong_lowering_is_caught_and_the_parameter_named(monkeypatch, op_type, damage, architecture, named):
    right = LOWERINGS[op_type]

    def wrong(op, inputs, context):
        return damage(op, inputs, right(op, inputs, context))

    monkeypatch.setitem(LOWERINGS, op_type, wrong)
    model = getattr(keras_models, architecture)()
    built = build(model, batch_size=BATCH)

    report = check_agreement(model, built.data, runtimes=installed_runtimes()[:1])

    assert not report.passed
    with pytest.raises(VerificationError, match=named):
        report.require()


def test_a_file_of_which_one_constant_was_changed_is_caught(plain):
    model, built = plain
    file = schema.ModelT.InitFromPackedBuf(built.data, 0)
    eighth = np.frombuffer(np.float32(1 / BATCH).tobytes(), np.uint8)  # the mean over the batch
    hits = [each for each in file.buffers if each.data is not None and np.array_equal(each.data, eighth)]
    assert hits
    for each in hits:
        each.data = np.frombuffer(np.float32(1.01 / BATCH).tobytes(), np.uint8)
    builder = flatbuffers.Builder(len(built.data))
    builder.Finish(file.Pack(builder), b"TFL3")

    report = check_agreement(model, bytes(builder.Output()), runtimes=installed_runtimes()[:1])

    assert not report.passed


def test_the_report_says_plainly_what_ran(plain):
    model, built = plain
    report = check_agreement(model, built.data, runtimes=installed_runtimes()[:1]).as_json()

    assert report["passed"]
    assert [(each["name"], each["ran"]) for each in report["runtimes"]] == [("ai-edge-litert", True)]
    assert {"gradient", "partial batch", "training", "loss", "evaluate", "infer"} <= set(report["runtimes"][0]["worst"])
