"""Cross-entropy with integer targets: equal to TensorFlow's, near 0 and far from it, in few large tensors."""

from __future__ import annotations

import keras
import numpy as np
import tensorflow as tf
from keras import layers

from edgefl.inspecting.graph import read_graph
from edgefl.model_file import ModelFile
from edgefl_converters.building.building import build

NUMBERS = np.random.default_rng(0)


def sparse(logits, targets):
    with tf.GradientTape() as tape:
        tape.watch(logits)
        loss = tf.nn.sparse_softmax_cross_entropy_with_logits(targets, logits)
    return tf.concat([loss[:, None], tape.gradient(loss, logits)], axis=1)


def test_values_and_gradients_are_tensorflows_whatever_the_logits_are(kernel_parity):
    targets = NUMBERS.integers(0, 7, 50).astype(np.int64)
    sure = np.eye(7, dtype=np.float32)[targets] * 40
    for name, logits in (
        ("usual", NUMBERS.normal(size=(50, 7))),
        ("right and sure of it", sure + NUMBERS.normal(size=(50, 7))),
        ("wrong and sure of it", -10 * sure),
        ("large", NUMBERS.normal(size=(50, 7)) + 1e4),
    ):
        kernel_parity.add(name, sparse, logits.astype(np.float32), targets)
    kernel_parity.add("one class", sparse, np.ones((3, 1), np.float32), np.zeros(3, np.int32))
    kernel_parity.check()


def test_a_step_makes_few_tensors_of_rows_times_classes():
    keras.utils.set_random_seed(1)
    tokens = keras.Input((5,), dtype="int32")
    model = keras.Model(tokens, layers.Dense(997)(layers.Embedding(997, 6)(tokens)))
    model.compile(keras.optimizers.SGD(0.1), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    graph = read_graph(ModelFile(build(model, batch_size=2).data))
    train = graph.signatures["train"]
    large = [
        each.name
        for each in graph.operators[train]
        for place in each.outputs
        if graph.tensors[train][place].size == 10 * 997 and each.name != "RESHAPE"
    ]
    # The product, the bias, the probabilities, what they should be, the difference, and that times each row's weight.
    assert len(large) <= 6, large
