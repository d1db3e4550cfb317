"""What layers compute in float64 is computed in float32 on devices."""

from __future__ import annotations

import keras
import tensorflow as tf
from keras import layers

from edgefl_converters.building.building import build
from edgefl_converters.verification.agreement import check_agreement


class Standardised(layers.Layer):
    """In float64, as it is often written for images, with a weight on the way of the gradient."""

    def build(self, shape):
        self.scale = self.add_weight(shape=shape[-1:], initializer="ones", name="scale")

    def call(self, images):
        exact = tf.cast(images * self.scale, tf.float64)
        mean, variance = tf.nn.moments(exact, axes=[1, 2, 3], keepdims=True)
        scaled = tf.transpose((exact - mean) / tf.sqrt(variance + 1e-3), [0, 2, 1, 3])
        return tf.cast(tf.concat([scaled, tf.constant([[[[0.5]]]], tf.float64) * scaled[..., :1]], -1), tf.float32)


class Share(layers.Layer):
    """Divides whole numbers, of which TensorFlow makes float64."""

    def call(self, numbers):
        above = tf.reduce_sum(tf.cast(numbers > 0, tf.int32), axis=1, keepdims=True)
        return numbers * tf.cast(above / tf.constant(3), tf.float32)


def test_ops_in_float64_train_as_in_keras():
    images, numbers = keras.Input((4, 4, 3)), keras.Input((3,))
    hidden = [layers.Flatten()(Standardised()(images)), Share()(layers.Dense(3)(numbers))]
    model = keras.Model([images, numbers], layers.Dense(2)(layers.Concatenate()(hidden)))
    model.compile(keras.optimizers.SGD(0.05), "mse")
    check_agreement(model, build(model, batch_size=4).data).require()


class Surely(layers.Layer):
    """Keeps a logarithm finite by a number that float32 does not have."""

    def call(self, numbers):
        return numbers + tf.cast(tf.math.log(tf.constant([0.0, 1.0], tf.float64) + 2.3e-308), tf.float32)


def test_numbers_too_small_for_float32_keep_logarithms_finite():
    model = keras.Sequential([keras.Input((3,)), layers.Dense(2), Surely(), layers.Softmax()])
    model.compile(keras.optimizers.SGD(0.05), "mse")
    check_agreement(model, build(model, batch_size=4).data).require()
