"""What attention is made of: many matrices times one, masks that are known, and normalization of rows."""

from __future__ import annotations

from collections import Counter

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers
from keras.src.ops import nn

from edgefl.inspecting.graph import read_graph
from edgefl.model_file import ModelFile
from edgefl_converters.building.building import build
from edgefl_converters.emission.lowerings import masking
from edgefl_converters.training_step.keras_rewrites.rewriting import rewritten_keras
from edgefl_converters.verification.agreement import check_agreement

RANDOM = np.random.default_rng(5)


def numbers(*shape):
    return RANDOM.normal(size=shape).astype(np.float32)


def gradients(function, *inputs, upstream):
    with tf.GradientTape() as tape:
        tape.watch(inputs)
        y = function(*inputs)
    return tf.concat([tf.reshape(each, [-1]) for each in tape.gradient(y, inputs, upstream)], 0)


def test_many_matrices_times_one_and_their_gradients_equal_the_kernels(kernel_parity):
    for name, left, right, settings in (
        ("rank 3", (4, 3, 5), (5, 2), {}),
        ("rank 4", (2, 3, 4, 5), (5, 2), {}),
        ("one transposed", (4, 3, 5), (2, 5), {"transpose_b": True}),
        ("many times many", (4, 3, 5), (4, 5, 2), {}),
        ("many transposed", (4, 5, 3), (4, 5, 2), {"transpose_a": True}),
    ):

        def product(a, b, settings=settings):
            return tf.matmul(a, b, **settings)

        a, b = numbers(*left), numbers(*right)
        upstream = numbers(*product(a, b).shape)
        kernel_parity.add(name, product, a, b)
        kernel_parity.add(
            f"{name}, gradients", lambda a, b, c, f=product: gradients(f, a, b, upstream=c), a, b, upstream
        )
    kernel_parity.check()


def test_a_sum_of_transposed_products_over_some_of_the_batch_stays_a_sum(kernel_parity):
    a, b = numbers(2, 3, 5, 4), numbers(2, 3, 5, 2)
    for axes in ([0], [1], [0, 1], [0, 2]):
        kernel_parity.add(
            f"over {axes}", lambda a, b, axes=axes: tf.reduce_sum(tf.matmul(a, b, transpose_a=True), axes), a, b
        )
    kernel_parity.check()


def test_a_known_mask_around_a_softmax_equals_the_kernels(kernel_parity):
    causal = np.tril(np.ones((1, 1, 4, 4), bool))

    def attention(scores):
        return tf.nn.softmax(tf.where(causal, scores, -1e9))

    x, upstream = numbers(2, 3, 4, 4), numbers(2, 3, 4, 4)
    kernel_parity.add("masked", attention, x)
    kernel_parity.add("gradient", lambda x, c: gradients(attention, x, upstream=c), x, upstream)
    # Nothing but a softmax is known to have no use for what is not finite.
    holes = np.array([[True, False, True, False]])
    kernel_parity.add("infinite", lambda x: tf.where(holes, x, 0.0), np.array([[1.0, np.inf, 2.0, np.nan]], np.float32))
    kernel_parity.check()


def test_a_known_mask_whose_result_nothing_reads_is_around_no_softmax():
    with tf.Graph().as_default():
        nobody = tf.where(np.array([True, False]), tf.compat.v1.placeholder(tf.float32, [2]), 0.0)
    assert masking.select(nobody.op, nobody.op.inputs[1:2] * 3, None) is None


@pytest.mark.parametrize("axes", [-1, 1, [1, 2]])
def test_rows_are_normalized_as_keras_does_it(kernel_parity, axes):
    x, upstream = numbers(2, 3, 4) * 3 + 5, numbers(2, 3, 4)
    shape = {-1: (4,), 1: (3,)}.get(axes if isinstance(axes, int) else None, (3, 4))
    gamma, beta = numbers(*shape), numbers(*shape)

    def keras_way(x, gamma, beta):
        return nn._layer_normalization(x, gamma, beta, axes, 1e-3)

    def own_way(*arrays):
        with rewritten_keras("layer_normalization"):
            return keras_way(*arrays)

    def own_gradients(*arrays):
        with rewritten_keras("layer_normalization"):
            return keras_gradients(*arrays)

    def keras_gradients(*arrays):
        return gradients(keras_way, *arrays[:-1], upstream=arrays[-1])

    kernel_parity.add("forward", own_way, x, gamma, beta, reference=keras_way)
    kernel_parity.add("gradients", own_gradients, x, gamma, beta, upstream, reference=keras_gradients)
    kernel_parity.check()


def block():
    given = keras.Input((6, 8))
    x = layers.LayerNormalization()(given)
    x = layers.MultiHeadAttention(2, 4)(x, x, use_causal_mask=True)
    model = keras.Model(given, layers.Dense(3)(layers.LayerNormalization(center=False)(x)))
    model.compile(keras.optimizers.SGD(0.1), "mse")
    return model


def test_causal_attention_trains_as_in_keras_without_a_choice_by_mask():
    model = block()
    built = build(model, batch_size=4)
    graph = read_graph(ModelFile(built.data))
    for signature in ("train", "infer"):
        ops = Counter(each.name for each in graph.operators[graph.signatures[signature]])
        assert not [name for name in ops if name.startswith("SELECT")]
    check_agreement(model, built.data).require()


def test_a_projection_is_one_product_in_each_direction():
    graph = read_graph(ModelFile(build(block(), batch_size=4).data))
    train = graph.signatures["train"]
    products = [each for each in graph.operators[train] if each.name == "BATCH_MATMUL"]
    ranks = Counter(len(graph.tensors[train][each.outputs[0]].shape) for each in products)
    # Scores and mixtures of values, forward (2) and back (4), go head by head.
    assert ranks[4] == 6
    assert ranks[3] == 0


def test_keras_gets_its_normalization_back():
    before = nn._layer_normalization
    build(block(), batch_size=2)
    assert nn._layer_normalization is before
