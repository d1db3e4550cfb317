"""Gradients of pooling against TensorFlow's own kernels: overlapping, padded, with rests and with ties."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import tensorflow as tf

IMAGES = [(4, 6), (7, 5), (1, 9)]
WINDOWS = [((2, 2), (2, 2)), ((3, 3), (2, 2)), ((3, 2), (1, 1)), ((2, 3), (3, 1)), ((1, 3), (1, 3))]


def cases():
    for image, (kernel, strides), padding in itertools.product(IMAGES, WINDOWS, ["SAME", "VALID"]):
        if padding == "SAME" or (kernel[0] <= image[0] and kernel[1] <= image[1]):
            yield image, {"ksize": [1, *kernel, 1], "strides": [1, *strides, 1], "padding": padding}


def images(shape, *, tied):
    random = np.random.default_rng(2)
    # Of three values: a quarter of all windows has its maximum more than once, some are all equal.
    return (random.integers(-1, 2, shape) if tied else random.normal(size=shape)).astype(np.float32)


def add(parity, kind, image, options, *, tied):
    key = "value" if kind == "AvgPool" else "input"
    x = images((2, *image, 3), tied=tied)

    def pool(x):
        return getattr(tf.raw_ops, kind)(**{key: x}, **options)

    def gradient(x, dy):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = pool(x)
        return tape.gradient(y, x, dy)

    dy = np.random.default_rng(3).normal(size=pool(x).shape).astype(np.float32)
    parity.add(f"{kind} {image} {options} {'tied' if tied else 'distinct'}", gradient, x, dy)


@pytest.mark.parametrize("kind", ["MaxPool", "AvgPool"])
def test_gradient_equals_the_kernel(kernel_parity, kind):
    for index, (image, options) in enumerate(cases()):
        add(kernel_parity, kind, image, options, tied=index % 2 == 0)
    kernel_parity.check()


@pytest.mark.slow
def test_gradient_of_the_maximum_equals_the_kernel_with_and_without_ties_everywhere(kernel_parity):
    for (image, options), tied in itertools.product(cases(), [False, True]):
        add(kernel_parity, "MaxPool", image, options, tied=tied)
    kernel_parity.check()
