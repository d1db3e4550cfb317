"""Convolutions and their gradients against TensorFlow's own kernels: strides, padding, dilations, groups, odd sizes."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import strategies as st

from edgefl_converters.emission.lowerings import axiswise
from sampling import sampled


@st.composite
def convolutions(draw):
    """An image, a filter, and attributes that TensorFlow takes."""
    kernel = (draw(st.integers(1, 4)), draw(st.integers(1, 4)))
    # Strides of 1 have lowerings of their own, for few channels and for more.
    strides = draw(st.one_of(st.just((1, 1)), st.tuples(st.integers(1, 3), st.integers(1, 3))))
    dilation = draw(st.integers(1, 3)) if strides == (1, 1) else 1
    padding = draw(st.sampled_from(["SAME", "VALID"]))
    least = [(size - 1) * dilation + 1 if padding == "VALID" else 1 for size in kernel]
    image = tuple(low + draw(st.integers(0, 7)) for low in least)
    return (
        (image, kernel),
        (strides, dilation, padding),
        draw(st.sampled_from([(1, 1), (5, 1), (12, 1), (4, 2), (20, 2), (4, 4), (2, 2)])),
        draw(st.sampled_from([4, 12, 20])),
    )


def spread(kernel: tf.Tensor, dilation: int) -> tf.Tensor:
    """A dilated filter as a bigger one with zeros between: TensorFlow has no dilated gradients on a CPU."""
    rows, columns, depth, filters = kernel.shape
    gap = dilation - 1
    spread = tf.reshape(kernel, [rows, 1, columns, 1, depth, filters])
    spread = tf.pad(spread, [[0, 0], [0, gap], [0, 0], [0, gap], [0, 0], [0, 0]])
    spread = tf.reshape(spread, [rows * dilation, columns * dilation, depth, filters])
    return spread[: rows * dilation - gap, : columns * dilation - gap]


def through_frozen(weights, options):
    """The gradient of the image alone, with a filter that is a constant of the graph."""

    def gradient(x, dy):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = tf.raw_ops.Conv2D(input=x, filter=tf.constant(weights), **options)
        return tape.gradient(y, x, dy)

    return gradient


def check(parity, cases):
    generator = np.random.default_rng(1)
    for ((height, width), kernel), (strides, dilation, padding), (channels, groups), filters in cases:
        image = generator.normal(size=(2, height, width, channels)).astype(np.float32)
        weights = generator.normal(size=(*kernel, channels // groups, filters)).astype(np.float32)
        options = {"strides": [1, *strides, 1], "padding": padding, "dilations": [1, dilation, dilation, 1]}
        shape = f"{height}x{width}x{channels} to {filters}, kernel {kernel}"
        name = f"{shape} {strides} {dilation} {padding} groups {groups}"

        def forward(x, w, options=options):
            return tf.raw_ops.Conv2D(input=x, filter=w, **options)

        def gradients(x, w, dy, options=options):
            with tf.GradientTape() as tape:
                tape.watch((x, w))
                y = tf.raw_ops.Conv2D(input=x, filter=w, **options)
            dx, dw = tape.gradient(y, (x, w), dy)
            return tf.concat([tf.reshape(dx, [-1]), tf.reshape(dw, [-1])], 0)

        def group_by_group(x, w, dy, options=options | {"dilations": [1] * 4}, groups=groups, dilation=dilation):
            with tf.GradientTape() as tape:
                tape.watch((x, w))
                split = [tf.split(each, groups, axis=-1) for each in (x, spread(w, dilation))]
                y = tf.concat([tf.raw_ops.Conv2D(input=a, filter=b, **options) for a, b in zip(*split)], -1)
            dx, dw = tape.gradient(y, (x, w), dy)
            return tf.concat([tf.reshape(dx, [-1]), tf.reshape(dw, [-1])], 0)

        def in_double(x, w, options=options | {"dilations": [1] * 4}, groups=groups, dilation=dilation):
            # TensorFlow's oneDNN kernel is wrong for one channel and strides of (1, 2) on some processors.
            split = [tf.split(tf.cast(each, tf.float64), groups, axis=-1) for each in (x, spread(w, dilation))]
            return tf.concat([tf.raw_ops.Conv2D(input=a, filter=b, **options) for a, b in zip(*split)], -1)

        parity.add(f"forward {name}", forward, image, weights, reference=in_double)
        dy = generator.normal(size=forward(image, weights).shape).astype(np.float32)
        parity.add(f"gradients {name}", gradients, image, weights, dy, reference=group_by_group)
        if dilation == groups == 1:
            parity.add(f"frozen filter {name}", through_frozen(weights, options), image, dy)
    parity.check()


def test_forward_and_both_gradients_equal_the_kernels(kernel_parity):
    check(kernel_parity, sampled(convolutions(), 24))


@pytest.mark.slow
def test_forward_and_both_gradients_equal_the_kernels_in_many_more_cases(kernel_parity):
    check(kernel_parity, sampled(convolutions(), 200))


SHIFTED = {
    # places, blocks, the first offset, from one to the next, length; whether TensorFlow's padding fits
    "same, rows": (12, 3, -1, 1, 12, True),
    "same, columns of a gradient": (12, 3, 1, -1, 12, True),
    "same, long": (28, 5, -8, 4, 28, True),
    "same, long, of a gradient": (28, 5, 8, -4, 28, True),
    "same, wider than all": (3, 7, -3, 1, 3, True),
    "valid": (14, 4, 0, 2, 8, True),
    "full": (8, 3, 0, -1, 10, False),
    "an even filter": (9, 4, -1, 1, 9, False),
    "two": (9, 2, 0, 1, 8, False),
    "cut off": (9, 3, -1, 1, 7, False),
}


def slices_added_up(terms, offsets, length):
    """The sum of shifted blocks, place by place."""
    around = max(*map(abs, offsets), length) + length
    padded = tf.pad(terms, [[0, 0], [around, around], [0, 0]])
    channels = terms.shape[-1] // len(offsets)
    blocks = [
        padded[:, around + offset : around + offset + length, block * channels : (block + 1) * channels]
        for block, offset in enumerate(offsets)
    ]
    return tf.add_n(blocks)


def test_evenly_shifted_terms_are_added_up_by_one_convolution_with_ones(kernel_parity):
    random = np.random.default_rng(4)
    for name, (places, blocks, first, step, length, at_once) in SHIFTED.items():
        offsets = [first + block * step for block in range(blocks)]
        terms = random.normal(size=(2, places, blocks * 5)).astype(np.float32)

        def summed(x, offsets=offsets, length=length):
            return axiswise._shifted_sum(x, 1, offsets, length)

        def plain(x, offsets=offsets, length=length):
            return slices_added_up(x, offsets, length)

        ops = [op.type for op in tf.function(summed).get_concrete_function(tf.constant(terms)).graph.get_operations()]
        assert ("DepthwiseConv2dNative" in ops, "AddV2" in ops) == (at_once, not at_once), name
        kernel_parity.add(name, summed, terms, reference=plain)
    kernel_parity.check()
