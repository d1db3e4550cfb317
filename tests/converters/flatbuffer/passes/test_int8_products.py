"""Products with frozen kernels in int8: which they are, and that they compute what dynamic quantization says."""

from __future__ import annotations

from collections import Counter

import keras
import numpy as np
import pytest
from keras import layers

import edgefl
from edgefl.errors import InvalidSettingError
from edgefl.inspecting.graph import read_graph
from edgefl.model_file import ModelFile
from edgefl.targets import COMPILED_MODEL
from edgefl_converters import FineTuning
from edgefl_converters.building.building import build
from edgefl_converters.flatbuffer.frozen_storage import DYNAMIC, quantized_rows
from edgefl_converters.settings.options import Options
from edgefl_converters.training_step.selection import fine_tuned

ROWS, WIDTH, MIDDLE, OUTPUTS = 8, 40, 96, 64
RATE = 0.5


def stack():
    """A trained layer below two frozen ones, without anything that bends."""
    keras.utils.set_random_seed(7)
    model = keras.Sequential(
        [
            keras.Input((6,)),
            layers.Dense(WIDTH, name="trained"),
            layers.Dense(MIDDLE, use_bias=False, name="middle"),
            layers.Dense(OUTPUTS, name="last"),
        ]
    )
    model.compile(keras.optimizers.SGD(RATE), "mse", jit_compile=False)
    return model


def rounded(x):
    """What a product in int8 makes of each row: 256 numbers from the least to the largest, of which 0 is one."""
    x = np.asarray(x, np.float64)
    least, largest = (each(x, axis=1, keepdims=True) for each in (np.min, np.max))
    step = (np.maximum(largest, 0) - np.minimum(least, 0)) / 255
    return np.rint(x / step) * step


def int8(matrix):
    """A kernel with a scale for each of its columns."""
    return quantized_rows(np.ascontiguousarray(matrix.T)).restored().T.astype(np.float64)


def options(**given):
    return Options(quantize_frozen=DYNAMIC, target="litert-2", **given)


def converted(model, tmp_path, tuning, rows=ROWS):
    path = tmp_path / "model.tflite"
    with fine_tuned(model, tuning) as wanted:
        built = build(wanted, batch_size=rows, options=options(fine_tuning=tuning))
    path.write_bytes(built.data)
    path.with_name("float32.tflite").write_bytes(built.float32)
    return path


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    return converted(stack(), tmp_path_factory.mktemp("stack"), FineTuning(trainable="trained"))


@pytest.fixture(params=["ai-edge-litert", COMPILED_MODEL])
def trainer(file, request):
    return edgefl.TrainableModel(file, runtime=request.param)


@pytest.fixture(scope="module")
def language_file(tmp_path_factory):
    """A small language model with adapters: an embedding, and kernels that lie both ways round."""
    keras.utils.set_random_seed(8)
    tokens = keras.Input((16,), dtype="int32", name="tokens")
    x = layers.Embedding(200, WIDTH, name="table")(tokens)
    x = x + layers.Dense(WIDTH, use_bias=False, name="down")(layers.Dense(MIDDLE, activation="gelu", name="up")(x))
    model = keras.Model(tokens, layers.Dense(200, name="head")(x))
    model.compile(keras.optimizers.SGD(2.0), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    return converted(model, tmp_path_factory.mktemp("language"), FineTuning(lora_rank=2), rows=2)


def operators(path, signature):
    """The ops of a signature that read a constant of a kilobyte or more: name, its type and shape."""
    graph = read_graph(ModelFile.read(path))
    index = graph.signatures[signature]
    tensors = graph.tensors[index]
    return Counter(
        (each.name, tensors[tensor].dtype, tensors[tensor].shape)
        for each in graph.operators[index]
        for tensor in each.inputs
        if tensor >= 0 and graph.buffer_sizes[tensors[tensor].buffer] >= 1024
    )


def test_outputs_and_gradients_are_those_of_dynamic_quantization(trainer):
    drawn = np.random.default_rng(0)
    x, y = (drawn.normal(size=(ROWS, size)).astype(np.float32) for size in (6, OUTPUTS))
    trained, middle, last = (np.asarray(stack().get_layer(name).kernel) for name in ("trained", "middle", "last"))
    hidden = x.astype(np.float64) @ trained
    output = rounded(rounded(hidden) @ int8(middle)) @ int8(last)
    assert trainer.predict(x) == pytest.approx(output, abs=2e-5 * np.abs(output).max())
    # A number between two that are in the way of both can be rounded to either.
    before = trainer.weights
    trainer.train_on_batch(x, y)
    gradient = 2 * (output - y) / y.size @ last.T  # the first on the way back is not rounded
    gradient = rounded(gradient) @ int8(middle.T)
    expected = x.astype(np.float64).T @ gradient
    change = (before - trainer.weights)[: expected.size].reshape(expected.shape) / RATE
    assert change == pytest.approx(expected, abs=1e-4 * np.abs(expected).max())


def test_without_rounding_the_gradient_is_another(trainer):
    """Else the test above would see nothing."""
    x = np.random.default_rng(0).normal(size=(ROWS, 6)).astype(np.float32)
    exact = stack().predict(x, verbose=0)
    assert 1e-3 < np.abs(trainer.predict(x) - exact).max() / np.abs(exact).max() < 0.03


def test_products_of_all_signatures_are_in_int8_but_for_the_first_on_the_way_back(language_file):
    forward = {
        ("FULLY_CONNECTED", "int8", (MIDDLE, WIDTH)): 1,
        ("FULLY_CONNECTED", "int8", (WIDTH, MIDDLE)): 1,
        ("FULLY_CONNECTED", "int8", (200, WIDTH)): 1,
        ("GATHER", "int8", (200, WIDTH)): 1,
    }
    assert operators(language_file, "infer") == operators(language_file, "evaluate") == forward
    train = operators(language_file, "train")
    # The gradient of the embedding's adapters wants that of what "up" is given, too.
    assert train["FULLY_CONNECTED", "int8", (MIDDLE, WIDTH)] == train["FULLY_CONNECTED", "int8", (WIDTH, MIDDLE)] == 2
    assert train["FULLY_CONNECTED", "int8", (WIDTH, 200)] == 0
    assert [each for each in train if each[1] == "float32"] == [("BATCH_MATMUL", "float32", (200, WIDTH))]


def test_each_kernel_lies_in_the_file_once_for_all_signatures(language_file):
    graph = read_graph(ModelFile.read(language_file))
    tensors = [tensor for index in graph.signatures.values() for tensor in graph.tensors[index]]
    buffers = {each.buffer for each in tensors if each.dtype == "int8"}
    sizes = sorted(graph.buffer_sizes[each] for each in buffers if graph.buffer_sizes[each])
    # Two kernels both ways round, that of the head and the table one way.
    assert sizes == sorted([*4 * [WIDTH * MIDDLE], *2 * [200 * WIDTH]])


def test_it_learns_as_in_float32(language_file):
    drawn = np.random.default_rng(0)
    x, y = (drawn.integers(0, 200, (2, 16)).astype(np.int32) for _ in "xy")
    losses = []
    for path in (language_file, language_file.with_name("float32.tflite")):
        trainer = edgefl.TrainableModel(path, runtime="ai-edge-litert")
        losses.append([float(trainer.train_on_batch(x, y)["loss"]) for _ in range(30)])
    learnt = losses[1][0] - losses[1][-1]
    assert learnt > 0.05
    assert losses[0] == pytest.approx(losses[1], abs=0.1 * learnt)
    assert losses[0] != losses[1]


def test_a_target_that_includes_tflite_runtime_is_refused():
    with pytest.raises(InvalidSettingError, match=r"Only ai-edge-litert computes .* in int8.*`target='litert-2'`"):
        Options(quantize_frozen=DYNAMIC)
