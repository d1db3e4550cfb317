"""Products and reversals that tflite-runtime 2.14 computes wrongly are written so that it computes them rightly."""

from __future__ import annotations

import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
from tensorflow.lite.python import schema_py_generated as schema

import edgefl
from edgefl_converters.building.building import build
from edgefl_converters.flatbuffer.file import FlatModel
from edgefl_converters.flatbuffer.passes.right_forms import rewrite_forms
from edgefl_converters.lint import lint_inference
from edgefl_converters.verification.agreement import check_agreement
from interpreters import each_interpreter

RUN = """
import sys
import numpy as np
from importlib import import_module
Interpreter = import_module(sys.argv[1]).Interpreter
interpreter = Interpreter(sys.argv[2])
interpreter.allocate_tensors()
given = np.load(sys.argv[3])
for details, array in zip(interpreter.get_input_details(), given.values()):
    interpreter.set_tensor(details["index"], array)
interpreter.invoke()
np.save(sys.argv[4], interpreter.get_tensor(interpreter.get_output_details()[0]["index"]))
"""
MODULES = {"tflite-runtime": "tflite_runtime.interpreter", "ai-edge-litert": "ai_edge_litert.interpreter"}


def converted(function, *arrays):
    specs = [tf.TensorSpec(each.shape, each.dtype) for each in arrays]
    concrete = tf.function(function).get_concrete_function(*specs)
    return tf.lite.TFLiteConverter.from_concrete_functions([concrete]).convert()


def computed(data, arrays, runtime, folder):
    (folder / "model.tflite").write_bytes(data)
    np.savez(folder / "given.npz", *arrays)
    files = [folder / name for name in ("model.tflite", "given.npz", "computed.npy")]
    subprocess.run([sys.executable, "-c", RUN, MODULES[runtime], *files], check=True, capture_output=True)
    return np.load(folder / "computed.npy")


def kinds(data):
    file = FlatModel(data)
    return [file.builtin(each) for subgraph in file.subgraphs for each in subgraph.operators]


def draw(*shapes):
    random = np.random.default_rng(5)
    return [random.normal(size=shape).astype(np.float32) for shape in shapes]


@pytest.mark.parametrize("runtime", each_interpreter())
@pytest.mark.parametrize(
    ("left", "right"),
    [
        ((2, 4, 3), (1, 4, 5)),
        ((3, 2, 4, 3), (3, 1, 4, 5)),
        ((3, 2, 2, 4, 3), (3, 2, 1, 4, 5)),
        ((1, 2, 4, 3), (3, 1, 4, 5)),
    ],
    ids=str,
)
def test_a_transposed_side_times_one_that_repeats_is_the_product(left, right, runtime, tmp_path):
    def product(x, y):
        return tf.matmul(x, y, transpose_a=True)

    arrays = draw(left, right)
    before = converted(product, *arrays)
    file = FlatModel(before)
    assert [each.rule for each in lint_inference(before)] == ["wrong-kernel"]
    assert rewrite_forms(file)
    after = file.pack()
    assert schema.BuiltinOperator.TRANSPOSE in kinds(after)
    assert lint_inference(after) == []
    np.testing.assert_allclose(computed(after, arrays, runtime, tmp_path), product(*arrays), atol=1e-5)


@pytest.mark.parametrize("runtime", each_interpreter())
def test_several_axes_are_reversed_one_after_the_other(runtime, tmp_path):
    def turned(x):
        return tf.reverse(x, [0, 2, 1])

    arrays = draw((2, 3, 4, 5))
    before = converted(turned, *arrays)
    file = FlatModel(before)
    assert [each.rule for each in lint_inference(before)] == ["wrong-kernel"]
    assert rewrite_forms(file)
    after = file.pack()
    assert kinds(after) == [schema.BuiltinOperator.REVERSE_V2] * 3
    assert lint_inference(after) == []
    np.testing.assert_array_equal(computed(after, arrays, runtime, tmp_path), turned(*arrays))


@pytest.mark.parametrize(
    ("left", "right"),
    [((2, 4, 3), (2, 4, 5)), ((1, 4, 3), (2, 4, 5)), ((2, 4, 3), (4, 5)), ((3, 2, 4, 3), (1, 2, 4, 5))],
)
def test_other_products_stay(left, right):
    data = converted(lambda x, y: tf.matmul(x, y, transpose_a=True), *draw(left, right))
    file = FlatModel(data)
    assert not rewrite_forms(file)
    assert lint_inference(data) == []


class Mixing(keras.layers.Layer):
    """Mixes the steps of each row by matrices that all rows share, and looks at it backwards and upside down."""

    def build(self, shape):
        self.kernel = self.add_weight(shape=(1, shape[1], 5), name="kernel")

    def call(self, inputs):
        mixed = tf.matmul(inputs, self.kernel, transpose_a=True)
        return mixed + tf.reverse(mixed, [1, 2])


def model():
    keras.utils.set_random_seed(2)
    made = keras.Sequential([keras.Input((4, 3)), Mixing(), keras.layers.Flatten(), keras.layers.Dense(2)])
    made.compile(keras.optimizers.SGD(0.1), "mse")
    return made


def test_a_model_with_such_a_product_trains_and_is_exported(tmp_path):
    made = model()
    built = build(made, batch_size=4)
    check_agreement(made, built.data)
    file = FlatModel(built.data)
    products = [
        (each.builtinOptions.adjX, [list(subgraph.tensors[tensor].shape) for tensor in each.inputs])
        for subgraph in file.subgraphs
        for each in subgraph.operators
        if file.builtin(each) == schema.BuiltinOperator.BATCH_MATMUL
    ]
    assert not [shapes for transposed, shapes in products if transposed and shapes[1][0] == 1 < shapes[0][0]]

    (tmp_path / "mixing.tflite").write_bytes(built.data)
    weights = edgefl.TrainableModel(tmp_path / "mixing.tflite").weights
    edgefl.export(tmp_path / "mixing.tflite", weights, tmp_path / "inference.tflite", base=made)
    assert lint_inference((tmp_path / "inference.tflite").read_bytes()) == []
