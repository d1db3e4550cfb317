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
