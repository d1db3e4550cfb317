"""Sizes that follow from shapes through branches and calls are constants when a graph is emitted again."""

from __future__ import annotations

import numpy as np
import tensorflow as tf


def gradient(function):
    """The gradient of a sum of squares."""

    def compute(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            value = tf.reduce_sum(tf.square(function(x)))
        return tape.gradient(value, x)

    return compute


def test_branches_that_shapes_choose_are_chosen_at_conversion(kernel_parity):
    images = np.random.default_rng(1).uniform(size=(2, 5, 4, 3)).astype(np.float32)

    def padded(x):
        missing = tf.shape(x)[1] - tf.shape(x)[2]
        border = lambda: tf.concat([x, tf.ones((2, tf.shape(x)[1], missing, 3))], axis=2)  # noqa: E731
        return tf.image.resize(tf.cond(missing > 0, border, lambda: x), (7, 7), "bicubic")

    kernel_parity.add("padded", padded, images)
    kernel_parity.add("padded, gradient", gradient(padded), images)
    kernel_parity.add("compared", lambda x: tf.image.ssim(x, 0.9 * x, 1.0, filter_size=3), images)
    kernel_parity.check()


def test_constants_that_are_arguments_of_a_function_stay_constants(kernel_parity):
    random = np.random.default_rng(1)
    line, kernel = random.normal(size=(2, 8, 4)), random.normal(size=(3, 4, 2))

    @tf.function(autograph=False)
    def inner(x):
        return tf.nn.convolution(x, tf.constant(kernel, tf.float32), 1, "SAME", "NWC", 2)

    kernel_parity.add("dilated", gradient(inner), line.astype(np.float32))
    kernel_parity.check()


def test_counted_steps_are_divided_as_by_the_kernel(kernel_parity):
    steps = np.array([0, 1, 5, 6, 2**30], np.int64)
    kernel_parity.add("floor division", lambda x: tf.cast(tf.math.floordiv(x, 3), tf.int32), steps)
    kernel_parity.check()
