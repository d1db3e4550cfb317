"""Gradients of depthwise convolutions against TensorFlow's own kernels."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import strategies as st

from edgefl_converters.flatbuffer.file import FlatModel
from sampling import sampled


@st.composite
def convolutions(draw):
    """An image, a filter, and attributes that TensorFlow takes."""
    kernel = (draw(st.integers(1, 4)), draw(st.integers(1, 4)))
    padding = draw(st.sampled_from(["SAME", "VALID"]))
    image = tuple((size if padding == "VALID" else 1) + draw(st.integers(0, 6)) for size in kernel)
    return image, kernel, draw(st.integers(1, 3)), padding, draw(st.integers(1, 3))


def through_frozen(weights, options):
    """The gradient of the image alone, with a filter that is a constant of the graph."""

    def gradient(x, dy):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = tf.nn.depthwise_conv2d(x, tf.constant(weights), **options)
        return tape.gradient(y, x, dy)

    return gradient


def check(kernel_parity, cases):
    generator = np.random.default_rng(5)
    for image, kernel, stride, padding, multiplier in cases:
        x = generator.normal(size=(2, *image, 3)).astype(np.float32)
        w = generator.normal(size=(*kernel, 3, multiplier)).astype(np.float32)
        options = {"strides": [1, stride, stride, 1], "padding": padding}

        def gradients(x, w, dy, options=options):
            with tf.GradientTape() as tape:
                tape.watch((x, w))
                y = tf.nn.depthwise_conv2d(x, w, **options)
            dx, dw = tape.gradient(y, (x, w), dy)
            return tf.concat([tf.reshape(dx, [-1]), tf.reshape(dw, [-1])], 0)

        dy = generator.normal(size=tf.nn.depthwise_conv2d(x, w, **options).shape).astype(np.float32)
        kernel_parity.add(f"{image} {kernel} {stride} {padding} x{multiplier}", gradients, x, w, dy)
        kernel_parity.add(
            f"frozen {image} {kernel} {stride} {padding} x{multiplier}", through_frozen(w, options), x, dy
        )
    kernel_parity.check()


def test_both_gradients_equal_the_kernels(kernel_parity):
    check(kernel_parity, sampled(convolutions(), 16))


@pytest.mark.parametrize("before", [((0, 1), (0, 1)), ((2, 0), (1, 2))])
def test_a_padded_image_costs_no_second_padding_and_no_second_slice(kernel_parity, tmp_path, before):
    generator = np.random.default_rng(6)
    x, w = (generator.normal(size=shape).astype(np.float32) for shape in ((2, 8, 8, 3), (3, 3, 3, 1)))

    def gradients(x, w, dy):
        with tf.GradientTape() as tape:
            tape.watch((x, w))
            y = tf.nn.depthwise_conv2d(tf.pad(x, [[0, 0], *before, [0, 0]]), w, [1, 2, 2, 1], "VALID")
        dx, dw = tape.gradient(y, (x, w), dy)
        return tf.concat([tf.reshape(dx, [-1]), tf.reshape(dw, [-1])], 0)

    padded = np.pad(x, [[0, 0], *before, [0, 0]])
    dy = generator.normal(size=tf.nn.depthwise_conv2d(padded, w, [1, 2, 2, 1], "VALID").shape).astype(np.float32)
    kernel_parity.add("padded", gradients, x, w, dy)

    kernel_parity.check()

    ops = Counter(each.op for each in FlatModel((tmp_path / "model.tflite").read_bytes()).emitted())
    # The image and the gradient are padded; four phases, four shifted gradients and the image's gradient cut out.
    assert (ops["PAD"], ops["SLICE"]) == (2, 9)


@pytest.mark.slow
def test_both_gradients_equal_the_kernels_in_many_more_cases(kernel_parity):
    check(kernel_parity, sampled(convolutions(), 150))
