"""Loops and decorated functions in layers of one's own train as in Keras; fixed numbers of steps are written out."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers, ops

import edgefl
from beside_keras import fits_alike
from edgefl.errors import UnsupportedModelError
from edgefl_converters.building.building import build
from edgefl_device_runtime.training import TrainableModel


class WhileLoop(layers.Layer):
    def call(self, x):
        return tf.while_loop(lambda i, x: i < 3, lambda i, x: (i + 1, tf.tanh(x) * 1.1), (tf.constant(0), x))[1]


class WithWeights(layers.Layer):
    """A step of an implicit layer, with `keras.ops`; the last loop counts down to what a shape says."""

    def build(self, shape):
        self.inner = self.add_weight(shape=(shape[-1], shape[-1]), name="inner")

    def call(self, x):
        x = ops.while_loop(lambda i, x: i < 4, lambda i, x: (i + 1, ops.tanh(ops.matmul(x, self.inner))), (0, x))[1]
        x = ops.fori_loop(0, 2, lambda i, x: x + ops.cast(i + 1, x.dtype) * ops.sin(x), x)
        return tf.while_loop(lambda n, x: n > 0, lambda n, x: (n - 1, x * 0.9), (tf.shape(x)[1], x))[1]


class EachRow(layers.Layer):
    def call(self, x):
        return tf.map_fn(lambda row: row / (1.0 + tf.reduce_sum(tf.abs(row))), x)


class Smoothed(layers.Layer):
    """An exponential average over the values of a row."""

    def call(self, x):
        smooth = tf.scan(lambda before, now: 0.9 * before + now, tf.transpose(x))
        _, sums = ops.scan(lambda sum, now: (sum + now, sum), ops.zeros_like(x[:, 0]), ops.transpose(x))
        return tf.transpose(smooth) + ops.transpose(sums)


class ByAutoGraph(layers.Layer):
    """TensorFlow traced it when the model was built, for any number of rows."""

    @tf.function
    def call(self, x):
        outputs = tf.TensorArray(tf.float32, size=tf.shape(x)[1])
        state = tf.zeros_like(x[:, 0])
        for step in tf.range(tf.shape(x)[1]):
            state = tf.tanh(state + x[:, step])
            outputs = outputs.write(step, state)
        return tf.reshape(tf.transpose(outputs.stack()), (-1, 4))


class Compiled(keras.Model):
    @tf.function
    def train_step(self, data):
        x, y = data
        with tf.GradientTape() as tape:
            loss = self.compute_loss(x, y, self(x, training=True))
        self.optimizer.apply_gradients(zip(tape.gradient(loss, self.trainable_variables), self.trainable_variables))
        return {"loss": loss}


class UntilSmall(layers.Layer):
    def call(self, x):
        return tf.while_loop(lambda x: tf.reduce_max(tf.abs(x)) > 1.0, lambda x: (x * 0.5,), (x,))[0]


class Endless(layers.Layer):
    def call(self, x):
        return tf.while_loop(lambda i, x: i < 600, lambda i, x: (i + 1, x * 0.99), (0, x))[1]


def around(layer):
    keras.utils.set_random_seed(1)
    model = keras.Sequential([keras.Input((5,)), layers.Dense(4), layer, layers.Dense(2)])
    model.compile("adam", "mse")
    return model


def rows():
    random = np.random.default_rng(7)
    return random.normal(size=(8, 5)).astype(np.float32), random.normal(size=(8, 2)).astype(np.float32)


@pytest.mark.parametrize("kind", [WhileLoop, WithWeights, EachRow, Smoothed, ByAutoGraph])
def test_a_loop_of_known_length_trains_as_in_keras(kind, tmp_path):
    fits_alike(around(kind()), tmp_path, *rows())


def test_a_loop_and_a_decorated_function_are_verified_in_silence(tmp_path, capfd, monkeypatch):
    monkeypatch.delenv("TF_CPP_MIN_LOG_LEVEL", raising=False)
    model = around(ByAutoGraph())
    capfd.readouterr()  # what TensorFlow says when it is first used
    result = edgefl.convert(model, tmp_path / "model.tflite", batch_size=4)
    assert result.report["verification"] is not None
    assert len(capfd.readouterr().err.splitlines()) == 1


def test_a_decorated_step_trains_in_keras_too_after_it_was_converted(tmp_path):
    keras.utils.set_random_seed(1)
    inputs = keras.Input((5,))
    model = Compiled(inputs, layers.Dense(2)(inputs))
    model.compile("sgd", "mse")
    edgefl.convert(model, tmp_path / "model.tflite", batch_size=4)
    device = TrainableModel(tmp_path / "model.tflite", runtime="ai-edge-litert")
    device.fit(*rows(), epochs=2, shuffle=False)
    model.fit(*rows(), batch_size=4, epochs=2, shuffle=False, verbose=0)
    for weight, variable in zip(device.get_weights(), model.weights, strict=True):
        np.testing.assert_allclose(weight, variable, rtol=1e-5, atol=1e-6)


def test_a_loop_that_ends_by_the_data_or_is_too_long_is_refused(tmp_path):
    with pytest.raises(UnsupportedModelError, match=r"'until_small' \(UntilSmall\)") as caught:
        edgefl.convert(around(UntilSmall(name="until_small")), tmp_path / "model.tflite", batch_size=4)
    assert "fixed number of steps" in caught.value.hint
    with pytest.raises(UnsupportedModelError, match="more than 512 steps"):
        build(around(Endless()), batch_size=4)
