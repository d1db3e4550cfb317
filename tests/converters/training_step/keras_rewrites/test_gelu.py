"""The exact gelu is one op of the model file, and its gradient needs no error function."""

from __future__ import annotations

from collections import Counter

import keras
import numpy as np
import tensorflow as tf
from keras import layers

from edgefl.inspecting.graph import read_graph
from edgefl.model_file import ModelFile
from edgefl_converters.building.building import build
from edgefl_converters.training_step.keras_rewrites.rewriting import rewritten_keras
from edgefl_converters.verification.agreement import check_agreement

POINTS = np.concatenate(
    [np.linspace(-9, 9, 181), [-0.0, 0.0, 1e-6, -1e-6, 1e-10, 1e-30, -1e-30, 1e-38, 300.0, -300.0]]
).astype(np.float32)
UPSTREAM = np.linspace(-2, 3, POINTS.size).astype(np.float32)


def gradient(x, upstream):
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = tf.nn.gelu(x, approximate=False)
    return tape.gradient(y, x, upstream)


def own_gradient(x, upstream):
    with rewritten_keras("gelu"):
        return gradient(x, upstream)


def test_the_gradient_is_tensorflows_from_zero_to_where_it_no_longer_changes(kernel_parity):
    kernel_parity.add("gradient", own_gradient, POINTS, UPSTREAM, reference=gradient)
    kernel_parity.check()


@keras.saving.register_keras_serializable("tests")
def gelu_by_tanh(x):
    return keras.activations.gelu(x, approximate=True)


def dense(activation):
    model = keras.Sequential([keras.Input((6,)), layers.Dense(8, activation), layers.Dense(1)])
    model.compile(keras.optimizers.SGD(0.1), "mse")
    return model


def test_a_file_has_one_op_for_each_gelu_in_every_signature(tmp_path):
    built = build(dense("gelu"), batch_size=4)
    graph = read_graph(ModelFile(built.data))
    for signature in ("train", "evaluate", "infer"):
        ops = Counter(each.name for each in graph.operators[graph.signatures[signature]])
        assert ops["GELU"] == 1
        assert ops["EXP"] == (signature == "train")


def test_a_model_with_gelu_trains_as_in_keras():
    for activation in ("gelu", gelu_by_tanh):
        model = dense(activation)
        check_agreement(model, build(model, batch_size=4).data).require()


def test_tensorflow_gets_its_gelu_back():
    before = tf.nn.gelu
    build(dense("gelu"), batch_size=2)
    assert tf.nn.gelu is before
