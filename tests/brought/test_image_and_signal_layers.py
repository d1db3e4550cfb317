"""Layers with TensorFlow's own functions for images and signals in them train on devices as in Keras."""

from __future__ import annotations

import keras
import tensorflow as tf
from keras import layers

import edgefl


class Patches(layers.Layer):
    """As in vision transformers."""

    def call(self, images):
        patches = tf.image.extract_patches(images, [1, 3, 3, 1], [1, 3, 3, 1], [1, 1, 1, 1], "VALID")
        return tf.reshape(patches, [tf.shape(images)[0], 4, 27])


class Edges(layers.Layer):
    """Sobel's, of images whose contrast is made stronger, beside the middle of each."""

    def call(self, images):
        edges = tf.reduce_sum(tf.abs(tf.image.sobel_edges(images)), axis=-1)
        middle = tf.image.resize(tf.image.central_crop(images, 0.5), (6, 6))
        return tf.concat([edges, middle], axis=-1)


class Spectrum(layers.Layer):
    """Logarithms of a power spectrum, and cepstral coefficients of it."""

    def call(self, signal):
        power = tf.square(tf.abs(tf.signal.stft(signal, 16, 8, fft_length=16)))
        return tf.signal.mfccs_from_log_mel_spectrograms(tf.math.log(power + 1e-2))


class Convolved(layers.Layer):
    """A long filter that is learnt, by way of the frequencies."""

    def build(self, shape):
        self.kernel = self.add_weight(shape=(shape[-1],), name="kernel")

    def call(self, signal):
        return tf.signal.irfft(tf.signal.rfft(signal) * tf.signal.rfft(self.kernel))


def trained(given, hidden, folder):
    model = keras.Model(given, layers.Dense(2)(layers.Flatten()(hidden)))
    model.compile(keras.optimizers.SGD(0.05), "mse")
    report = edgefl.convert(model, folder / "model.tflite", batch_size=4).report
    return any(each["ran_on"] for each in report["evidence"])


def test_functions_for_images(tmp_path):
    given = keras.Input((6, 6, 3))
    images = layers.Conv2D(3, 3, padding="same", activation="sigmoid")(given)
    both = [layers.Flatten()(Patches()(images)), layers.Flatten()(Edges()(images))]
    assert trained(given, layers.Concatenate()(both), tmp_path)


def test_functions_for_signals(tmp_path):
    given = keras.Input((32,))
    signal = Convolved()(layers.Dense(32, "tanh")(given))
    assert trained(given, Spectrum()(signal), tmp_path)


def test_channels_first_and_combined_options(tmp_path):
    given = keras.Input((4, 6, 6, 4))
    volume = layers.Conv3D(4, 2, groups=2, dilation_rate=2, data_format="channels_first")(layers.Dense(4)(given))
    images = layers.Resizing(3, 5, "bicubic", pad_to_aspect_ratio=True, data_format="channels_first")
    assert trained(given, images(layers.Reshape((16, 4, 2))(volume)), tmp_path)
