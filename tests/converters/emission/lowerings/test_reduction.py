"""Sums over many dimensions against TensorFlow's own kernel."""

from __future__ import annotations

import itertools

import numpy as np
import tensorflow as tf

RANDOM = np.random.default_rng(6)


def test_sums_over_any_axes_of_a_tensor_of_high_rank_equal_the_kernel(kernel_parity):
    shapes = {5: (2, 3, 1, 2, 4), 6: (2, 1, 3, 1, 2, 2), 8: (1, 8, 1, 1, 3, 1, 1, 4)}
    for rank, shape in shapes.items():
        value = RANDOM.normal(size=shape).astype(np.float32)
        for axes in [
            (0,),
            (rank - 1,),
            (-2, 0),
            tuple(range(0, rank, 2)),
            tuple(range(1, rank, 2)),
            tuple(range(rank)),
        ]:
            for keep in (False, True):

                def total(x, axes=axes, keep=keep):
                    return tf.reduce_sum(x, axes, keepdims=keep)

                kernel_parity.add(f"sum over {axes} of {shape}, keep {keep}", total, value)
    kernel_parity.check()


def test_gradients_of_tiling_equal_the_kernel(kernel_parity):
    for shape, multiples in itertools.product([(2, 3, 4), (2, 1, 4)], [(1, 2, 3), (2, 2, 1)]):

        def gradient(x, multiples=multiples):
            with tf.GradientTape() as tape:
                tape.watch(x)
                y = tf.tile(x, multiples)
                loss = tf.reduce_sum(y * tf.reshape(tf.range(tf.size(y), dtype=tf.float32), y.shape))
            return tape.gradient(loss, x)

        kernel_parity.add(f"tile {shape} by {multiples}", gradient, RANDOM.normal(size=shape).astype(np.float32))
    kernel_parity.check()


def test_long_reductions_are_as_exact_as_tensorflow(kernel_parity):
    """Of numbers behind a relu, of which half are alike: an addition rounds them all to the same side."""

    def in_doubles(function):
        return lambda *arrays: function(*(tf.cast(each, tf.float64) for each in arrays))

    def variance(x):
        axes = list(range(x.shape.rank - 1))
        return tf.reduce_mean(tf.square(x - tf.reduce_mean(x, axes)), axes)

    def bias_gradient(x):
        return tf.raw_ops.BiasAddGrad(out_backprop=x)

    def filter_gradient(x):
        return tf.linalg.matmul(x, x, transpose_a=True)

    def kept(x):
        return tf.reduce_mean(tf.square(x), axis=[1, 2], keepdims=True)

    cases = {
        "variance": (variance, (32, 256, 4)),
        "variance of images": (variance, (8, 48, 48, 4)),
        "variance of volumes": (variance, (4, 16, 16, 16, 3)),
        "variance of a prime length": (variance, (2, 4099, 3)),
        "sum of all": (lambda x: tf.reduce_sum(tf.square(x)), (3, 3, 64, 64)),
        "half of squares": (lambda x: tf.raw_ops.L2Loss(t=x), (200, 300)),
        "gradient of a bias": (bias_gradient, (32, 512, 4)),
        "gradient of a filter": (filter_gradient, (16384, 8)),
        "gradient of a filter of a prime length": (filter_gradient, (10007, 8)),
        "kept dimensions": (kept, (2, 64, 64, 3)),
    }
    own = {}
    for name, (function, shape) in cases.items():
        value = np.maximum(RANDOM.normal(size=shape), 0.0).astype(np.float32)
        exact = np.asarray(in_doubles(function)(tf.constant(value)))
        own[name] = np.abs(np.asarray(function(tf.constant(value))) - exact).max() / np.abs(exact).max()
        kernel_parity.add(name, function, value, reference=in_doubles(function))
    errors = kernel_parity.errors()
    assert {case: error for case, error in errors.items() if not error <= 2 * own[case[0]] + 5e-7} == {}
