"""Tensors of six and more dimensions against TensorFlow's own kernels."""

from __future__ import annotations

import numpy as np
import tensorflow as tf


def numbers(*shape, seed=1):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def test_transposes_of_many_dimensions(kernel_parity):
    x = numbers(2, 3, 1, 2, 3, 2, 4)
    for order in ([0, 1, 5, 6, 2, 3, 4], [4, 0, 1, 6, 3, 2, 5], [0, 2, 1, 3, 4, 5, 6], [0, 1, 2, 3, 4, 5, 6]):
        kernel_parity.add(f"{order}", lambda x, order=order: tf.transpose(x, order), x)
    kernel_parity.check()


def test_softmax_over_several_of_many_axes(kernel_parity):
    x = numbers(2, 3, 2, 1, 3, 2, 4)

    def softmax(x):
        powers = tf.exp(x - tf.reduce_max(x, axis=(4, 6), keepdims=True))
        return tf.where(x > 0.0, powers / tf.reduce_sum(powers, axis=(4, 6), keepdims=True), 0.0)

    kernel_parity.add("softmax", softmax, x)
    kernel_parity.add("mean", lambda x: tf.reduce_mean(x, axis=(1, 2, 6)), x)
    kernel_parity.check()


def test_products_over_several_axes(kernel_parity):
    query, key = numbers(2, 3, 2, 3, 2, 2), numbers(2, 3, 4, 2, 2, 2, seed=2)
    kernel_parity.add("scores", lambda q, k: tf.einsum("abcdef,abghef->abeghcd", q, k), query, key)
    weights = numbers(2, 3, 2, 4, 2, 2, 3)
    for equation, shapes in {
        "...b,bcd->...cd": ((2, 3, 4), (4, 2, 5)),
        "...cd,bcd->...b": ((2, 3, 2, 5), (4, 2, 5)),
        "...ij,...jk->...ik": ((2, 3, 4, 2), (2, 3, 2, 5)),
    }.items():
        given = [numbers(*shape, seed=seed) for seed, shape in enumerate(shapes)]
        kernel_parity.add(equation, lambda x, y, equation=equation: tf.einsum(equation, x, y), *given)
    kernel_parity.add("values", lambda w, v: tf.einsum("abefgcd,abfgeh->abcdeh", w, v), weights, key)
    kernel_parity.check()


def test_broadcasting_over_many_dimensions(kernel_parity):
    x = numbers(2, 3, 2, 1, 3, 2, 4)
    for shape in ([2, 3, 2, 1, 3, 1, 1], [4], []):
        for function in (tf.subtract, tf.maximum, tf.divide):
            kernel_parity.add(
                f"{function.__name__} {shape}",
                function,
                x,
                np.asarray(1.0 + np.abs(numbers(*shape, seed=2)), np.float32),
            )
    kernel_parity.check()
