"""Gradients of lookups and slices against TensorFlow's own kernels."""

from __future__ import annotations

import numpy as np
import tensorflow as tf


def test_rows_looked_up_twice_get_both_gradients(kernel_parity):
    random = np.random.default_rng(6)
    for indices in ([0, 3, 3, 1], [[2, 2], [2, 2]], [4]):
        indices = np.asarray(indices, np.int32)
        rows = random.normal(size=(*indices.shape, 5)).astype(np.float32)

        def summed(rows, indices):
            return tf.math.unsorted_segment_sum(rows, indices, 6)

        kernel_parity.add(f"{indices.tolist()}", summed, rows, indices)
    kernel_parity.check()


def test_slices_of_slices_equal_the_kernel(kernel_parity):
    x = np.random.default_rng(8).normal(size=(4, 5, 6)).astype(np.float32)
    for first, second, size in (([1, 0, 2], [0, 1, 1], [2, -1, 2]), ([0, 0, 0], [0, 0, 3], [-1, 1, -1])):

        def twice(x, first=first, second=second, size=size):
            return tf.slice(tf.slice(x, first, [3, 4, 4]), second, size)

        kernel_parity.add(f"{first} {second} {size}", twice, x)
    kernel_parity.check()


def test_gradients_of_slices_equal_the_kernel(kernel_parity):
    slices = {
        "[1:3]": lambda x: x[1:3],
        "[:, 2]": lambda x: x[:, 2],
        "[:, ::2]": lambda x: x[:, ::2],
        "[..., 1::3]": lambda x: x[..., 1::3],
        "[::-1, 1:4:2]": lambda x: x[::-1, 1:4:2],
        "[-1]": lambda x: x[-1],
        "[None, :, 1:]": lambda x: x[None, :, 1:],
        "[:, None, ..., -2:]": lambda x: x[:, None, ..., -2:],
        "[3:1:-1, ..., 0]": lambda x: x[3:1:-1, ..., 0],
        "all": lambda x: x[:, :, :],
    }
    x = np.random.default_rng(7).normal(size=(4, 5, 6)).astype(np.float32)
    for name, take in slices.items():

        def gradient(x, dy, take=take):
            with tf.GradientTape() as tape:
                tape.watch(x)
                y = take(x)
            return tape.gradient(y, x, dy)

        dy = np.random.default_rng(8).normal(size=take(x).shape).astype(np.float32)
        kernel_parity.add(name, gradient, x, dy)
    kernel_parity.check()


def test_what_has_one_element_becomes_a_scalar_as_by_the_kernels(kernel_parity):
    for shape in ((1,), (1, 1), (1, 1, 1)):
        for name, scalar in {"reshape": lambda x: tf.reshape(x, []), "squeeze": tf.squeeze}.items():
            # What a signature returns must have a dimension, so that the scalar is used before.
            kernel_parity.add(
                f"{name} {shape}",
                lambda x, y, scalar=scalar: y * scalar(x),
                np.full(shape, 3.0, np.float32),
                np.arange(4, dtype=np.float32),
            )
    kernel_parity.check()


def test_whole_numbers_are_held_to_any_limits(kernel_parity):
    numbers = np.arange(-9, 12, dtype=np.int32)
    for low, high in ((0, 6), (-1, 1), (0, 1), (0, 255)):
        kernel_parity.add(f"clip {low} {high}", lambda x, a=low, b=high: tf.clip_by_value(x, a, b), numbers)
        kernel_parity.add(f"other {low} {high}", lambda x, a=low, b=high: tf.minimum(tf.maximum(a, x), b), numbers)
    kernel_parity.check()


def test_parts_of_a_tensor_go_together_along_any_axis(kernel_parity):
    """Also as the gradient of `stack`, as in rotary positions whose halves alternate."""
    x = np.random.default_rng(9).normal(size=(2, 4, 6)).astype(np.float32)
    for unpacked in (-3, -1, 1, 2):
        for joined in (-2, -1, 0, 1):

            def together(x, unpacked=unpacked, joined=joined):
                return tf.concat(tf.unstack(x, axis=unpacked), joined)

            kernel_parity.add(f"{unpacked} {joined}", together, x)

    def gradient(x, dy):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = tf.reshape(tf.stack(tf.split(x, 2, axis=-1), axis=-1), (2, 4, 6))
        return tape.gradient(y, x, dy)

    kernel_parity.add("halves in turns", gradient, x, x[::-1].copy())
    kernel_parity.check()
