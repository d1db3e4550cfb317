"""What layers of one's own do with images, against TensorFlow's own kernels: patches, crops, morphology, borders."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import tensorflow as tf


def numbers(*shape, seed=1):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def gradient(function):
    """The gradient of a sum of cubes."""

    def compute(*given):
        with tf.GradientTape() as tape:
            tape.watch(given)
            value = tf.reduce_sum(function(*given) ** 3)
        return tf.concat([tf.reshape(each, [-1]) for each in tape.gradient(value, given)], axis=0)

    return compute


def test_patches_equal_the_kernels(kernel_parity):
    for size, strides, rates, padding in itertools.product(((1, 1), (3, 2)), (1, 2), (1, 2), ("VALID", "SAME")):
        kernel = [1, *size, 1]

        def extract(x, kernel=kernel, strides=strides, rates=rates, padding=padding):
            return tf.image.extract_patches(x, kernel, [1, strides, strides, 1], [1, rates, rates, 1], padding)

        name = f"{size} {strides} {rates} {padding}"
        kernel_parity.add(name, extract, numbers(2, 7, 6, 3))
        kernel_parity.add(f"{name} gradient", gradient(extract), numbers(2, 7, 6, 3))
    kernel_parity.check()


def test_crops_equal_the_kernels(kernel_parity):
    images = numbers(2, 6, 5, 3)
    boxes = np.array([[0.0, 0.1, 0.8, 0.9], [-0.3, 0.2, 1.2, 0.7], [0.9, 0.8, 0.1, 0.2]], np.float32)
    places = np.array([1, 0, 1], np.int32)
    for size, outside in itertools.product(((4, 3), (1, 1)), (0.0, 0.5)):

        def crop(x, y, size=size, outside=outside):
            return tf.image.crop_and_resize(x, y, places, size, extrapolation_value=outside)

        kernel_parity.add(f"{size} {outside}", crop, images, boxes)
        kernel_parity.add(f"{size} {outside} gradient", gradient(lambda x, f=crop: f(x, boxes)), images)
    kernel_parity.check()


@pytest.mark.slow
def test_morphology_and_places_of_maxima_equal_the_kernels(kernel_parity):
    image, kernel = numbers(2, 7, 6, 3), numbers(2, 3, 3, seed=2)
    for strides, rates, padding in itertools.product((1, 2), (1, 2), ("VALID", "SAME")):
        around = ([1, strides, strides, 1], padding, "NHWC", [1, rates, rates, 1])
        for function in (tf.nn.dilation2d, tf.nn.erosion2d):
            name, call = f"{function.__name__} {around}", lambda x, k, f=function, a=around: f(x, k, *a)
            kernel_parity.add(name, call, image, kernel)
            kernel_parity.add(f"{name} gradient", gradient(call), image, kernel)
    for padding, in_batch in itertools.product(("VALID", "SAME"), (False, True)):
        call = lambda x, p=padding, b=in_batch: tf.nn.max_pool_with_argmax(x, 3, 2, p, include_batch_in_index=b)  # noqa: E731
        kernel_parity.add(f"places {padding} {in_batch}", lambda x, f=call: tf.cast(f(x)[1], tf.int32), image)
        kernel_parity.add(f"maxima {padding} {in_batch}", gradient(lambda x, f=call: f(x)[0]), image)
    kernel_parity.check()


def test_borders_colours_and_areas_equal_the_kernels(kernel_parity):
    image, unit = numbers(2, 5, 6, 3), np.random.default_rng(1).uniform(size=(2, 5, 6, 3)).astype(np.float32)
    for mode in ("REFLECT", "SYMMETRIC"):
        pad = lambda x, mode=mode: tf.pad(x, [[0, 0], [2, 1], [0, 3], [1, 0]], mode)  # noqa: E731
        kernel_parity.add(f"{mode} gradient", gradient(pad), image)
    for delta in (0.1, -0.7):
        kernel_parity.add(f"hue {delta}", lambda x, d=delta: tf.image.adjust_hue(x, d), unit)
    for factor in (0.4, 1.7):
        kernel_parity.add(f"saturation {factor}", lambda x, f=factor: tf.image.adjust_saturation(x, f), unit)
        kernel_parity.add(f"contrast {factor}", lambda x, f=factor: tf.image.adjust_contrast(x, f), unit)
    for size in ((3, 3), (2, 4), (7, 9)):
        kernel_parity.add(f"area {size}", lambda x, s=size: tf.image.resize(x, s, "area"), image)
    for radius in (1, 5):
        normalize = lambda x, r=radius: tf.nn.local_response_normalization(x, r, 0.7, 0.3, 0.6)  # noqa: E731
        kernel_parity.add(f"response {radius}", gradient(normalize), image)
    kernel_parity.check()


def test_channels_first_equals_channels_last(kernel_parity):
    image, kernel = numbers(2, 6, 5, 4), numbers(3, 2, 4, 3, seed=2)
    volume, solid = numbers(2, 4, 5, 4, 2), numbers(2, 3, 2, 2, 3, seed=2)

    strides = {"NDHWC": [1, 1, 2, 1, 1], "NCDHW": [1, 1, 1, 2, 1]}

    def first(x):
        return tf.transpose(x, [0, x.shape.rank - 1, *range(1, x.shape.rank - 1)])

    def last(x):
        return tf.transpose(x, [0, *range(2, x.shape.rank), 1])

    def add(name, in_format, *given):
        two = given[0].ndim == 4
        formats = ("NHWC", "NCHW") if two else ("NDHWC", "NCDHW")
        there = lambda x, *more: last(in_format(formats[1])(first(x), *more))  # noqa: E731
        kernel_parity.add(name, there, *given, reference=in_format(formats[0]))
        kernel_parity.add(f"{name} gradient", gradient(there), *given, reference=gradient(in_format(formats[0])))

    add("conv2d", lambda f: lambda x, k: tf.nn.conv2d(x, k, 2, "SAME", f), image, kernel)
    add("dilated", lambda f: lambda x, k: tf.nn.convolution(x, k, 1, "VALID", f, 2), image, kernel)
    add("conv3d", lambda f: lambda x, k: tf.nn.conv3d(x, k, strides[f], "SAME", f), volume, solid)
    for name, pool in {"max": tf.nn.max_pool2d, "mean": tf.nn.avg_pool2d}.items():
        add(f"{name} 2", lambda f, pool=pool: lambda x: pool(x, (3, 2), (2, 1), "SAME", f), image)
    for name, pool in {"max": tf.nn.max_pool3d, "mean": tf.nn.avg_pool3d}.items():
        add(f"{name} 3", lambda f, pool=pool: lambda x: pool(x, 2, 2, "VALID", f), volume)
    add("bias", lambda f: lambda x, b: tf.nn.bias_add(x, b, f), image, numbers(4))
    kernel_parity.check()
