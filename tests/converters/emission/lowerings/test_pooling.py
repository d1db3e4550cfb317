"""Gradients of pooling against TensorFlow's own kernels: overlapping, padded, with rests and with ties."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
from ai_edge_litert.interpreter import Interpreter
from hypothesis import strategies as st

from sampling import sampled


@st.composite
def pools(draw):
    """An image, and attributes that TensorFlow takes; half of the windows do not overlap."""
    kernel = (draw(st.integers(1, 3)), draw(st.integers(1, 3)))
    strides = kernel if draw(st.booleans()) else (draw(st.integers(1, 3)), draw(st.integers(1, 3)))
    padding = draw(st.sampled_from(["SAME", "VALID"]))
    image = tuple((size if padding == "VALID" else 1) + draw(st.integers(0, 6)) for size in kernel)
    options = {"ksize": [1, *kernel, 1], "strides": [1, *strides, 1], "padding": padding}
    return image, options, draw(st.booleans())


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
    for image, options, tied in sampled(pools(), 25):
        add(kernel_parity, kind, image, options, tied=tied)
    kernel_parity.check()


def test_windows_that_tile_an_image_are_read_by_one_slice_for_each_tap_but_the_last(kernel_parity, tmp_path):
    options = {"ksize": [1, 2, 2, 1], "strides": [1, 2, 2, 1], "padding": "VALID"}
    add(kernel_parity, "MaxPool", (6, 8), options, tied=True)
    kernel_parity.check()
    ops = [each["op_name"] for each in Interpreter(str(tmp_path / "model.tflite"))._get_ops_details()]
    assert ops.count("SLICE") == 3
    assert "SPLIT" not in ops


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["MaxPool", "AvgPool"])
def test_gradient_equals_the_kernel_in_many_more_cases(kernel_parity, kind):
    for image, options, tied in sampled(pools(), 200):
        add(kernel_parity, kind, image, options, tied=tied)
    kernel_parity.check()
