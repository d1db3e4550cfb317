"""Adding a column to a square: Keras takes the column for a bias when the batch is static."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

import keras_models
from edgefl_converters.building.building import build
from edgefl_converters.training_step.keras_rewrites.rewriting import rewritten_keras
from edgefl_converters.verification.agreement import check_agreement
from edgefl_converters.verification.runtimes import installed_runtimes

SHAPES = [
    ((4, 4), (4, 1)),
    ((4, 3, 4), (4, 1, 1)),
    ((4, 3, 4), (4, 3, 1)),
    ((4, 4), (4,)),
    ((4, 4), (1, 4)),
    ((4, 4), ()),
]


@pytest.mark.parametrize(("left", "right"), SHAPES)
@pytest.mark.parametrize("dtype", ["float32", "int32"])
def test_addition_follows_numpy_whatever_the_shapes(left, right, dtype):
    generator = np.random.default_rng(0)
    x = generator.normal(size=left).astype(np.float32)
    y = (10 * generator.normal(size=right)).astype(dtype)
    with rewritten_keras("addition"):
        total = keras.ops.add(tf.constant(x), tf.constant(y))
    assert total.dtype == tf.float32
    np.testing.assert_allclose(total, x + y, rtol=1e-6)


def test_a_model_that_adds_a_column_trains_as_in_keras_when_the_batch_is_as_long_as_the_rows():
    inputs = keras.Input((6,))
    hidden = layers.Dense(8)(inputs)
    centred = hidden + keras.ops.mean(hidden, axis=-1, keepdims=True)
    model = keras.Model(inputs, layers.Softmax()(centred))
    model.compile("sgd", "sparse_categorical_crossentropy")
    built = build(model, batch_size=keras_models.BATCH)

    check_agreement(model, built.data, runtimes=installed_runtimes()[:1]).require()


def test_biases_of_as_many_filters_as_positions_are_added_to_the_filters_as_in_predict():
    """Keras adds them along the positions in ``fit``, and as documented where TensorFlow fuses it."""
    given = keras.Input((3, 6))
    layer = layers.Conv1D(5, 2, data_format="channels_first", bias_initializer="random_normal")
    model = keras.Model(given, layers.Dense(2)(layers.Flatten()(layer(given))))
    model.compile(keras.optimizers.SGD(0.1), "mse")
    try:
        model.predict(np.zeros((4, 3, 6), np.float32), verbose=0)
    except tf.errors.UnimplementedError as error:
        pytest.skip(f"Keras itself has no convolution with the channels first on this processor: {error.message[:80]}")
    built = build(model, batch_size=4)

    check_agreement(model, built.data, runtimes=installed_runtimes()[:1]).require()
