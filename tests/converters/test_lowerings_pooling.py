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


@pytest.mark.parametrize("kind", ["MaxPool", "AvgPool"])
@pytest.mark.parametrize("values", ["distinct", "tied"])
def test_gradient_equals_the_kernel(kernel_parity, kind, values):
    pool = getattr(tf.raw_ops, kind)
    random = np.random.default_rng(2)
    for image, options in cases():
        shape = (2, *image, 3)
        if values == "tied":  # A quarter of all windows has its maximum twice, some are all equal.
            data = random.integers(-1, 2, shape).astype(np.float32)
        else:
            data = random.normal(size=shape).astype(np.float32)

        def gradient(x, dy, options=options):
            with tf.GradientTape() as tape:
                tape.watch(x)
                y = pool(value=x, **options) if kind == "AvgPool" else pool(input=x, **options)
            return tape.gradient(y, x, dy)

        key = "value" if kind == "AvgPool" else "input"
        dy = random.normal(size=pool(**{key: data}, **options).shape).astype(np.float32)
        kernel_parity.add(f"{image} {options}", gradient, data, dy)
    kernel_parity.check()
