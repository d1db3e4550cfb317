"""Kernels of first dense layers lie transposed inside the interpreter, and nothing outside of it differs."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import layers

from edgefl.inspecting.graph import read_graph
from edgefl.model_file import ModelFile
from edgefl_converters.building import building
from edgefl_converters.settings.options import Options
from edgefl_converters.verification.agreement import check_agreement
from edgefl_device_runtime.training.model import TrainableModel
from interpreters import EXPECTED

ROWS, FEATURES, OUTPUTS = 32, 132, 128


def mlp(optimizer=None, outputs=OUTPUTS, **settings):
    keras.utils.set_random_seed(5)
    stack = [layers.Dense(outputs, "relu", **settings), layers.Dense(OUTPUTS, "relu"), layers.Dense(4, "softmax")]
    model = keras.Sequential([keras.Input((FEATURES,)), *stack])
    model.compile(optimizer or keras.optimizers.SGD(0.1), "sparse_categorical_crossentropy")
    return model


def held(built):
    """The shapes of all matrices that `train` reads from variables."""
    graph = read_graph(ModelFile(built.data))
    reads = [operator for operator in graph.operators[0] if operator.name == "READ_VARIABLE"]
    shapes = {graph.tensors[0][operator.outputs[0]].shape for operator in reads}
    return {shape for shape in shapes if len(shape) == 2}


def as_in_keras(outputs=OUTPUTS):
    return {(FEATURES, outputs), (outputs, OUTPUTS), (OUTPUTS, 4)}


@pytest.fixture(scope="module")
def model():
    return mlp()


@pytest.fixture(scope="module")
def built(model):
    return building.build(model, batch_size=ROWS)


@pytest.fixture
def trainable(built, tmp_path):
    path = tmp_path / "model.tflite"
    path.write_bytes(built.data)
    return TrainableModel(path, runtime="ai-edge-litert")


def test_the_first_kernel_alone_lies_transposed(built):
    assert held(built) == {(OUTPUTS, FEATURES), (OUTPUTS, OUTPUTS), (OUTPUTS, 4)}


@pytest.mark.parametrize("signature", ["train", "evaluate", "infer"])
def test_what_computes_with_it_does_not_transpose_it(built, signature):
    graph = read_graph(ModelFile(built.data))
    index = graph.signatures[signature]

    turned = [graph.tensors[index][each.inputs[0]].shape for each in graph.operators[index] if each.name == "TRANSPOSE"]

    assert {(FEATURES, OUTPUTS), (OUTPUTS, FEATURES)}.isdisjoint(turned)


def test_it_trains_as_keras_does_on_both_runtimes(model, built):
    report = check_agreement(model, built.data)

    report.require()
    assert [runtime.ran for runtime in report.runtimes] == [True] * len(EXPECTED)


def test_file_and_manifest_say_what_they_say_without_it(model, built):
    plain = building.build(model, batch_size=ROWS, options=Options(without_passes="transposed_kernels"))

    assert held(plain) == as_in_keras()
    assert built.manifest.signatures == plain.manifest.signatures
    assert built.manifest.layout_hash == plain.manifest.layout_hash
    assert built.manifest.weights_hash == plain.manifest.weights_hash
    np.testing.assert_array_equal(ModelFile(built.data).initial_weights(), ModelFile(plain.data).initial_weights())


def test_weights_go_in_and_out_as_keras_has_them(model, trainable):
    np.testing.assert_array_equal(trainable.get_weights()[0], model.get_weights()[0])
    random = np.random.default_rng(1)
    given = [random.normal(size=each.shape).astype(np.float32) for each in model.get_weights()]

    trainable.set_weights(given)

    for ours, own in zip(trainable.get_weights(), given, strict=True):
        np.testing.assert_array_equal(ours, own)


def test_a_saved_state_brings_the_kernel_back(trainable):
    random = np.random.default_rng(2)
    x, y = random.normal(size=(ROWS, FEATURES)).astype(np.float32), random.integers(0, 4, ROWS)
    state, weights = trainable.get_state(), trainable.weights.copy()
    trainable.train_on_batch(x, y)
    assert not np.array_equal(trainable.weights, weights)

    trainable.set_state(state)

    np.testing.assert_array_equal(trainable.weights, weights)


@pytest.mark.parametrize(
    "optimizer",
    [keras.optimizers.SGD(0.1, momentum=0.9), keras.optimizers.Adam(), keras.optimizers.SGD(0.1, clipnorm=1.0)],
    ids=["momentum", "adam", "clipped"],
)
def test_a_kernel_that_other_ops_need_lies_as_in_keras(optimizer):
    assert as_in_keras() <= held(building.build(mlp(optimizer), batch_size=ROWS))


@pytest.mark.parametrize("options", [{"algorithms": "fedprox"}, {"micro_batch": 8}, {"target": "tflite-2.14"}], ids=str)
def test_options_that_gain_nothing_leave_it(options):
    assert held(building.build(mlp(), batch_size=ROWS, options=Options(**options))) == as_in_keras()


@pytest.mark.parametrize(("rows", "outputs"), [(10, OUTPUTS), (33, 512), (32, 96)])
def test_few_rows_and_few_outputs_leave_it(rows, outputs):
    assert held(building.build(mlp(outputs=outputs), batch_size=rows)) == as_in_keras(outputs)
