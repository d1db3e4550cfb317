"""Elementwise ops on tiled values against TensorFlow's own kernels."""

from __future__ import annotations

import numpy as np
import tensorflow as tf


def test_tiled_operands_give_what_the_kernels_give(kernel_parity):
    random = np.random.default_rng(9)
    x = random.normal(size=(2, 3, 4, 5)).astype(np.float32)
    functions = {
        "product": lambda x, t: x * t,
        "product, tiled first": lambda x, t: t * x,
        "difference": lambda x, t: x - t,
        "difference, tiled first": lambda x, t: t - x,
        "quotient": lambda x, t: t / (2.0 + tf.abs(x)),
        "scaled": lambda x, t: x + t * 3.0 / 7.0,
        "scaled, scalar first": lambda x, t: 2.0 - x * (3.0 - t),
        "both tiled": lambda x, t: x + t * t,
        "thin and whole": lambda x, t: (t / 5.0) + tf.reduce_sum(t / 5.0) + x,
        "many": lambda x, t: tf.add_n([t, x, t / 2.0, x]),
        "only tiled": lambda x, t: tf.add_n([t, t, t]) + x,
        "not elementwise": lambda x, t: tf.nn.softmax(t) + x,
    }
    for shape, times in {(1, 1, 1, 5): (2, 3, 4, 1), (2, 1, 1, 5): (1, 3, 4, 1), (2, 3, 2, 5): (1, 1, 2, 1)}.items():
        thin = random.normal(size=shape).astype(np.float32)
        for name, function in functions.items():

            def on_tiled(x, thin, function=function, times=times):
                return function(x, tf.tile(thin, times))

            kernel_parity.add(f"{name} {shape}", on_tiled, x, thin)
    kernel_parity.check()


def test_the_gradients_of_mean_and_variance_equal_the_kernels(kernel_parity):
    random = np.random.default_rng(10)
    x = random.normal(size=(4, 3, 3, 5)).astype(np.float32)
    for axes in ([0, 1, 2], [1, 2], [3], [0], [0, 1, 2, 3]):
        for reduce in (tf.reduce_mean, tf.math.reduce_variance, tf.math.reduce_std):

            def gradient(x, weights, axes=axes, reduce=reduce):
                with tf.GradientTape() as tape:
                    tape.watch(x)
                    y = tf.reduce_sum(reduce(x, axes, keepdims=True) * weights)
                return tape.gradient(y, x)

            kernel_parity.add(f"{reduce.__name__} {axes}", gradient, x, random.normal(size=x.shape).astype(np.float32))
    kernel_parity.check()
