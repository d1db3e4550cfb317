"""Three-dimensional convolution and pooling against TensorFlow's own kernels."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import assume
from hypothesis import strategies as st

from sampling import sampled

PADDINGS = st.sampled_from(["SAME", "VALID"])
triples = st.tuples(*[st.integers(1, 3)] * 3)


@st.composite
def volumes(draw):
    kernel = draw(triples)
    shape = tuple(size + draw(st.integers(0, 3)) for size in kernel)
    strides, padding = draw(triples), draw(PADDINGS)
    # Not where the last window of SAME ends two or more before its axis does: TensorFlow's forward kernels begin in the
    # middle there, against its documentation, its 2-D kernels and its own gradients, which begin at 0 as edgefl does.
    assume(padding == "VALID" or all(ends_before_the_axis(*axis) < 2 for axis in zip(shape, kernel, strides)))
    return shape, kernel, strides, padding


def ends_before_the_axis(size, kernel, stride):
    """How far the last window of SAME is from the end of an axis, when the first one begins at 0."""
    return size - ((size - 1) // stride * stride + kernel)


def numbers(shape, seed, *, tied=False):
    generator = np.random.default_rng(seed)
    return (generator.integers(-1, 2, shape) if tied else generator.normal(size=shape)).astype(np.float32)


def add_convolution(parity, case, channels, filters):
    shape, kernel, strides, padding = case
    image, weights = numbers((2, *shape, channels), 1), numbers((*kernel, channels, filters), 2)
    options = {"strides": [1, *strides, 1], "padding": padding}

    def forward(x, w):
        return tf.raw_ops.Conv3D(input=x, filter=w, **options)

    def gradients(x, w, dy):
        with tf.GradientTape() as tape:
            tape.watch((x, w))
            y = forward(x, w)
        dx, dw = tape.gradient(y, (x, w), dy)
        return tf.concat([tf.reshape(dx, [-1]), tf.reshape(dw, [-1])], 0)

    dy = numbers(forward(image, weights).shape, 3)
    parity.add(f"Conv3D {case}", forward, image, weights)
    parity.add(f"gradients of Conv3D {case}", gradients, image, weights, dy)


def add_pooling(parity, kind, case, *, tied):
    shape, kernel, strides, padding = case
    image = numbers((2, *shape, 2), 4, tied=tied)

    def pool(x):
        options = {"ksize": [1, *kernel, 1], "strides": [1, *strides, 1], "padding": padding}
        return getattr(tf.raw_ops, kind)(input=x, **options)

    def gradient(x, dy):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = pool(x)
        return tape.gradient(y, x, dy)

    parity.add(f"{kind} {case}", pool, image)
    parity.add(f"gradient of {kind} {case} {tied}", gradient, image, numbers(pool(image).shape, 5))


def test_kernels_of_tensorflow_still_begin_where_the_cases_leave_them_out():
    """When they begin nowhere else than planes do, whatever the processor, the exception in `volumes` can go."""
    line, stride, strides = np.arange(1, 7, dtype=np.float32), 3, [1, 3, 1, 1, 1]
    volume, window, tap = line.reshape(1, 6, 1, 1, 1), [1, 1, 1, 1, 1], np.ones((1, 1, 1, 1, 1), np.float32)
    assert ends_before_the_axis(6, 1, stride) == 2
    forward = [
        tf.raw_ops.Conv3D(input=volume, filter=tap, strides=strides, padding="SAME"),
        tf.raw_ops.MaxPool3D(input=volume, ksize=window, strides=strides, padding="SAME"),
        tf.raw_ops.AvgPool3D(input=volume, ksize=window, strides=strides, padding="SAME"),
    ]
    # By oneDNN, which TensorFlow takes on some processors, they begin where its documentation says.
    assert all(list(np.ravel(each)) in ([2, 5], [1, 4]) for each in forward)

    image, options = volume[..., 0], {"ksize": window[:4], "strides": strides[:4], "padding": "SAME"}
    planes = [tf.raw_ops.MaxPool(input=image, **options), tf.raw_ops.AvgPool(value=image, **options)]
    planes.append(tf.raw_ops.Conv2D(input=image, filter=tap[0], strides=[1, 3, 3, 1], padding="SAME"))
    assert [list(np.ravel(each)) for each in planes] == [[1, 4]] * 3
    gradient = tf.raw_ops.Conv3DBackpropInputV2(
        input_sizes=volume.shape, filter=tap, out_backprop=forward[0] * 0 + 1, strides=strides, padding="SAME"
    )
    assert list(np.ravel(gradient)) == [1, 0, 0, 1, 0, 0]


def test_convolution_and_its_gradients_equal_the_kernels(kernel_parity):
    for index, case in enumerate(sampled(volumes(), 8)):
        add_convolution(kernel_parity, case, 1 + index % 3, 2)
    for strides in ((1, 1, 1), (3, 1, 1)):  # a single tap and as many filters as channels: a square matrix
        add_convolution(kernel_parity, ((4, 2, 4), (1, 1, 1), strides, "SAME"), 3, 3)
    kernel_parity.check()


@pytest.mark.parametrize("kind", ["MaxPool3D", "AvgPool3D"])
def test_pooling_and_its_gradient_equal_the_kernels(kernel_parity, kind):
    for index, case in enumerate(sampled(volumes(), 8)):
        add_pooling(kernel_parity, kind, case, tied=index % 2 == 0)
    kernel_parity.check()


@pytest.mark.slow
def test_convolution_equals_the_kernels_in_many_more_cases(kernel_parity):
    for index, case in enumerate(sampled(volumes(), 60)):
        add_convolution(kernel_parity, case, 1 + index % 3, 1 + index % 4)
    kernel_parity.check()


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["MaxPool3D", "AvgPool3D"])
def test_pooling_equals_the_kernels_in_many_more_cases(kernel_parity, kind):
    for index, case in enumerate(sampled(volumes(), 60)):
        add_pooling(kernel_parity, kind, case, tied=index % 2 == 0)
    kernel_parity.check()
