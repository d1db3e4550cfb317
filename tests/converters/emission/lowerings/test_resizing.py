"""Resizing and its gradient against TensorFlow's own kernels."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import strategies as st

from sampling import sampled

sizes = st.integers(1, 7)
cases = st.tuples(
    st.sampled_from(["ResizeBilinear", "ResizeBicubic", "ResizeNearestNeighbor"]),
    st.tuples(sizes, sizes),
    st.tuples(sizes, sizes),
    st.sampled_from([(False, True), (False, False), (True, False)]),
)
scalings = st.tuples(
    st.tuples(sizes, sizes),
    st.tuples(sizes, sizes),
    st.sampled_from(["triangle", "lanczos3", "lanczos5", "keyscubic", "gaussian", "box"]),
    st.booleans(),
)


def gradient_of(function, shape, size, name, parity):
    generator = np.random.default_rng(1)
    image = generator.normal(size=(2, *shape, 3)).astype(np.float32)
    dy = generator.normal(size=(2, *size, 3)).astype(np.float32)

    def gradient(x, dy):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = function(x)
        return tape.gradient(y, x, dy)

    parity.add(f"gradient of {name}", gradient, image, dy)
    return image


def add(parity, case):
    kind, shape, size, (corners, centres) = case

    def resize(x):
        options = {"align_corners": corners, "half_pixel_centers": centres}
        return getattr(tf.raw_ops, kind)(images=x, size=list(size), **options)

    image = gradient_of(resize, shape, size, case, parity)
    if kind == "ResizeBicubic":
        parity.add(f"{case}", resize, image)


def add_scaling(parity, case):
    shape, size, kernel, antialias = case
    scale = np.asarray(size, np.float32) / np.asarray(shape, np.float32)

    def resize(x):
        return tf.raw_ops.ScaleAndTranslate(
            images=x, size=list(size), scale=scale, translation=[0.0, 0.0], kernel_type=kernel, antialias=antialias
        )

    image = gradient_of(resize, shape, size, case, parity)
    parity.add(f"{case}", resize, image)


def test_resizing_and_its_gradient_equal_the_kernels(kernel_parity):
    for case in sampled(cases, 25):
        add(kernel_parity, case)
    for case in sampled(scalings, 10):
        add_scaling(kernel_parity, case)
    kernel_parity.check()


@pytest.mark.slow
def test_resizing_equals_the_kernels_in_many_more_cases(kernel_parity):
    for case in sampled(cases, 250):
        add(kernel_parity, case)
    for case in sampled(scalings, 100):
        add_scaling(kernel_parity, case)
    kernel_parity.check()
