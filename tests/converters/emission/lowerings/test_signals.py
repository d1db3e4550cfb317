"""Fourier transforms and all else on complex numbers against TensorFlow's own kernels."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

LENGTHS = (1, 2, 7, 8, 15, 72, 144, 257)


def numbers(*shape, seed=1):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def both(value):
    return tf.concat([tf.math.real(value), tf.math.imag(value)], axis=-1)


def gradient(function):
    """The gradient of a sum of squares."""

    def compute(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            value = tf.reduce_sum(tf.square(function(x)))
        return tape.gradient(value, x)

    return compute


def complex_of(x):
    return tf.complex(x, 0.5 * tf.cos(x))


@pytest.mark.slow
def test_transforms_equal_the_kernels_at_every_length(kernel_parity):
    for length in LENGTHS:
        x, name = numbers(2, length), f"of {length}"
        kernel_parity.add(f"fft {name}", lambda x: both(tf.signal.fft(complex_of(x))), x)
        kernel_parity.add(f"ifft {name}", lambda x: both(tf.signal.ifft(complex_of(x))), x)
        kernel_parity.add(f"rfft {name}", lambda x: both(tf.signal.rfft(x)), x)
        kernel_parity.add(f"irfft {name}", lambda x, n=length: tf.signal.irfft(tf.signal.rfft(x), [n]), x)
        if length > 1:
            kernel_parity.add(f"rfft gradient {name}", gradient(lambda x: tf.abs(tf.signal.rfft(x))), x)
            kernel_parity.add(f"irfft gradient {name}", gradient(lambda x, n=length: _filtered(x, n)), x)
    kernel_parity.check()


def _filtered(x, length):
    return tf.signal.irfft(tf.signal.rfft(x) * tf.signal.rfft(tf.sin(x)), [length])


def test_transforms_of_several_axes_and_of_other_lengths_equal_the_kernels(kernel_parity):
    image = numbers(2, 6, 8)
    kernel_parity.add("fft2d", lambda x: both(tf.signal.fft2d(complex_of(x))), image)
    kernel_parity.add("ifft3d", lambda x: both(tf.signal.ifft3d(complex_of(x))), image)
    kernel_parity.add("rfft2d", lambda x: both(tf.signal.rfft2d(x)), image)
    kernel_parity.add("irfft2d", lambda x: tf.signal.irfft2d(tf.signal.rfft2d(x)), image)
    kernel_parity.add("rfft2d gradient", gradient(lambda x: tf.abs(tf.signal.rfft2d(x))), image)
    kernel_parity.add("longer", lambda x: both(tf.signal.rfft(x, [12])), image)
    kernel_parity.add("shorter", lambda x: both(tf.signal.rfft(x, [5])), image)
    kernel_parity.add("back, longer", lambda x: tf.signal.irfft(tf.signal.rfft(x), [11]), image)
    kernel_parity.check()


@pytest.mark.slow
def test_what_is_made_of_windows_of_a_signal_equals_the_kernels(kernel_parity):
    signal = numbers(2, 64)
    stft = lambda x: tf.signal.stft(x, 16, 8, fft_length=20)  # noqa: E731
    for name, function in {
        "stft": lambda x: tf.abs(stft(x)),
        "angles": lambda x: tf.math.angle(stft(x) + tf.complex(9.0, 1.0)),
        "inverse stft": lambda x: tf.signal.inverse_stft(tf.signal.stft(x, 16, 8), 16, 8),
        "dct 2": lambda x: tf.signal.dct(x, 2, norm="ortho"),
        "dct 1": lambda x: tf.signal.dct(x, 1),
        "dct 3": lambda x: tf.signal.dct(x, 3),
        "mdct": lambda x: tf.signal.mdct(x, 16),
        "mfcc": tf.signal.mfccs_from_log_mel_spectrograms,
    }.items():
        kernel_parity.add(name, function, signal)
        kernel_parity.add(f"{name}, gradient", gradient(function), signal)
    kernel_parity.check()


def test_arithmetic_of_complex_numbers_equals_the_kernels(kernel_parity):
    x = numbers(2, 3, 4)
    for name, function in {
        "product": lambda z: z * tf.math.conj(z + 1.0),
        "quotient": lambda z: z / (z + 3.0),
        "reciprocal": lambda z: tf.math.reciprocal(z + 2.0),
        "exponential": tf.exp,
        "square": tf.square,
        "sum": lambda z: tf.reduce_sum(z, axis=1),
        "transposed": lambda z: tf.transpose(z, [0, 2, 1], conjugate=True),
        "matrices": lambda z: tf.matmul(z, z, adjoint_b=True),
        "moved": lambda z: tf.concat([tf.reshape(z, [2, 12])[:, 1::2], tf.zeros([2, 1], z.dtype)], axis=1),
        "chosen": lambda z: tf.where(tf.math.real(z) > 0.0, z, tf.zeros_like(z)),
    }.items():
        kernel_parity.add(name, lambda x, function=function: both(function(complex_of(x))), x)
        kernel_parity.add(f"{name}, gradient", gradient(lambda x, f=function: both(f(complex_of(x)))), x)
    kernel_parity.check()
