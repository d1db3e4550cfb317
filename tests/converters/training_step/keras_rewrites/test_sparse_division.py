"""Optimizers that divide the gradient of an embedding."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers, optimizers

from edgefl_converters.building.building import build
from edgefl_converters.training_step.keras_rewrites.rewriting import rewritten_keras
from edgefl_converters.verification.agreement import check_agreement
from edgefl_converters.verification.runtimes import installed_runtimes


def test_rows_that_were_looked_up_are_divided_one_by_one():
    rows = tf.IndexedSlices(tf.constant([[2.0], [3.0], [8.0]]), tf.constant([1, 1, 0]), tf.constant([3, 1]))
    with rewritten_keras("sparse_division"):
        found = keras.ops.divide(rows, tf.constant([[4.0], [2.0], [0.0]]))
        half = keras.ops.divide(rows, 2.0)
    np.testing.assert_array_equal(found.values, [[1.0], [1.5], [2.0]])
    np.testing.assert_array_equal(found.indices, rows.indices)
    np.testing.assert_array_equal(half.values, [[1.0], [1.5], [4.0]])


@pytest.mark.parametrize(
    "optimizer",
    [
        pytest.param(optimizers.Adadelta(1.0), marks=pytest.mark.slow),
        optimizers.Adadelta(1.0, clipnorm=0.1),
        pytest.param(optimizers.RMSprop(0.01, momentum=0.9), marks=pytest.mark.slow),
    ],
    ids=["Adadelta", "Adadelta, clipped", "RMSprop with momentum"],
)
def test_an_embedding_trains_with_optimizers_that_use_the_quotient_again(optimizer):
    model = keras.Sequential([keras.Input((3,), dtype="int32"), layers.Embedding(7, 2), layers.Flatten()])
    model.add(layers.Dense(2))
    model.compile(optimizer, "mse")
    check_agreement(model, build(model, batch_size=4).data, runtimes=installed_runtimes()[:1]).require()
