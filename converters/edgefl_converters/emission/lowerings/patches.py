"""Windows that are handed out, or compared, as they are: patches of images, morphology, maxima with their places."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from edgefl_converters.emission.lowerings.matmul import matmul
from edgefl_converters.emission.lowerings.pooling import LOWEST, first_maximum, reaching, sum_back
from edgefl_converters.emission.lowerings.windows import Window, axis_positions, gather_rows, pad_image, patches
from edgefl_converters.emission.registry import Context, lowering
from edgefl_converters.emission.traced_ops import attribute, constant, static_shape


@lowering("ExtractImagePatches")
def extract_image_patches(op: Any, inputs: Sequence[tf.Tensor], context: Context) -> Sequence[tf.Tensor]:
    """The windows that a convolution would see."""
    (image,) = inputs
    window = _window(op, static_shape(image)[1:3], op.get_attr("ksizes")[1:3])
    return [tf.reshape(patches(image, window, context), static_shape(op.outputs[0]))]


@lowering("Dilation2D")
def dilation(op: Any, inputs: Sequence[tf.Tensor], context: Context) -> Sequence[tf.Tensor]:
    """The maximum of a window plus the filter, channel by channel."""
    image, kernel = inputs
    window = _window(op, static_shape(image)[1:3], static_shape(kernel)[:2])
    best = tf.reduce_max(_lifted(image, kernel, window), axis=2)
    return [tf.reshape(best, static_shape(op.outputs[0]))]


@lowering("Dilation2DBackpropInput")
def dilation_input_gradient(op: Any, inputs: Sequence[tf.Tensor], context: Context) -> Sequence[tf.Tensor]:
    """The gradient of a window goes to where its maximum is, the first of several."""
    image, kernel, gradient = inputs
    window = _window(op, static_shape(image)[1:3], static_shape(kernel)[:2])
    received = tf.concat(_received(image, kernel, gradient, window), axis=2)
    batch, channels = static_shape(image)[0], static_shape(image)[3]
    flat = tf.reshape(received, [batch, window.count * window.taps, channels])
    return [sum_back(flat, reaching(window, per_tap=True), window)]


@lowering("Dilation2DBackpropFilter")
def dilation_filter_gradient(op: Any, inputs: Sequence[tf.Tensor], context: Context) -> Sequence[tf.Tensor]:
    """Adds up what the windows give to each tap."""
    image, kernel, gradient = inputs
    window = _window(op, static_shape(image)[1:3], static_shape(kernel)[:2])
    sums = [tf.reduce_sum(each, axis=[0, 1, 2]) for each in _received(image, kernel, gradient, window)]
    return [tf.reshape(tf.concat(sums, axis=0), static_shape(kernel))]


@lowering("MaxPoolWithArgmax")
def max_pool_with_places(op: Any, inputs: Sequence[tf.Tensor], context: Context) -> Sequence[tf.Tensor]:
    """The maxima, and the number of the pixel, or number, that each one was: the first of several."""
    (image,) = inputs
    batch, height, width, channels = static_shape(image)
    window = _window(op, (height, width), op.get_attr("ksize")[1:3])
    seen = gather_rows(pad_image(image, window, LOWEST), window.axis_indices(0), window.axis_indices(1))
    seen = tf.reshape(seen, [batch, window.count, window.taps, channels])
    rows, columns = (window.axis_indices(axis) - window.before[axis] for axis in (0, 1))
    pixels = (rows[:, None, :, None] * width + columns[None, :, None, :]).reshape(window.count, window.taps)
    numbers = pixels[None, :, :, None] * channels + np.arange(channels)
    if op.get_attr("include_batch_in_index"):
        numbers = numbers + np.arange(batch)[:, None, None, None] * (height * width * channels)
    first = tf.one_hot(tf.argmax(seen, axis=2, output_type=tf.int32), window.taps, axis=2, dtype=tf.int32)
    places = tf.reduce_sum(first * tf.constant(numbers, tf.int32), axis=2)
    shape = static_shape(op.outputs[0])
    return [
        tf.reshape(tf.reduce_max(seen, axis=2), shape),
        tf.cast(tf.reshape(places, shape), op.outputs[1].dtype),
    ]


@lowering("MaxPoolGradWithArgmax")
def max_pool_with_places_gradient(op: Any, inputs: Sequence[tf.Tensor], context: Context) -> Sequence[tf.Tensor]:
    """As for any maximum: the places follow from the image again."""
    image, gradient = inputs[:2]
    batch, height, width, channels = static_shape(image)
    window = _window(op, (height, width), op.get_attr("ksize")[1:3])
    seen = gather_rows(pad_image(image, window, LOWEST), window.axis_indices(0), window.axis_indices(1))
    seen = tf.reshape(seen, [batch, window.count, window.taps, channels])
    best = tf.reduce_max(seen, axis=2, keepdims=True)
    given = tf.reshape(gradient, [batch, window.count, 1, channels])
    received = tf.concat(first_maximum(tf.split(seen, window.taps, axis=2), best, given), axis=2)
    flat = tf.reshape(received, [batch, window.count * window.taps, channels])
    return [sum_back(flat, reaching(window, per_tap=True), window)]


@lowering("MirrorPadGrad")
def mirror_pad_gradient(op: Any, inputs: Sequence[tf.Tensor], context: Context) -> Sequence[tf.Tensor]:
    """Each border is folded back onto what it mirrors, one axis after the other."""
    gradient, edge = inputs[0], int(attribute(op, "mode") == "REFLECT")
    for axis, (before, after) in enumerate(np.asarray(constant(op, 1)).tolist()):
        if before or after:
            gradient = _folded_back(gradient, axis, before, after, edge)
    return [gradient]


def _folded_back(gradient: tf.Tensor, axis: int, before: int, after: int, edge: int) -> tf.Tensor:
    """Borders of an axis onto what they mirror; ``edge`` is 1 where the outermost element is not repeated."""
    size = static_shape(gradient)[axis] - before - after
    first, middle, last = tf.split(gradient, [before, size, after], axis=axis)
    for border, begin in ((first, edge), (last, size - after - edge)):
        length = static_shape(border)[axis]
        around = [[0, 0] for _ in gradient.shape]
        around[axis] = [begin, size - begin - length]
        if length:
            middle = middle + tf.pad(tf.reverse(border, [axis]), around)
    return middle


@lowering("LRNGrad")
def local_response_gradient(op: Any, inputs: Sequence[tf.Tensor], context: Context) -> Sequence[tf.Tensor]:
    """The derivative of a channel by the channels around it, whose squares are added up by a matrix of bands."""
    gradient, features, output = inputs
    radius, alpha, beta, bias = (op.get_attr(name) for name in ("depth_radius", "alpha", "beta", "bias"))
    *before, channels = static_shape(features)
    places = np.arange(channels)
    band = (np.abs(places[:, None] - places) <= radius).astype(np.float32)

    def around(values: tf.Tensor) -> tf.Tensor:
        return tf.reshape(matmul(tf.reshape(values, [-1, channels]), tf.constant(band)), [*before, channels])

    norm = bias + alpha * around(features * features)
    return [gradient * tf.pow(norm, -beta) - 2.0 * alpha * beta * features * around(gradient * output / norm)]


def _window(op: Any, image: Sequence[int], kernel: Sequence[int]) -> Window:
    """Reads an op that calls its dilations rates, and knows no other format than ``NHWC``."""
    strides = [int(each) for each in op.get_attr("strides")[1:3]]
    rates = [int(each) for each in op.get_attr("rates")[1:3]] if "rates" in op.node_def.attr else [1, 1]
    before, positions = zip(
        *(
            axis_positions(attribute(op, "padding"), image[axis], kernel[axis], strides[axis], rates[axis])
            for axis in (0, 1)
        )
    )
    sizes = (tuple(map(int, each)) for each in (image, kernel, strides, rates, before, positions))
    return Window(*sizes)  # type: ignore[arg-type]


def _lifted(image: tf.Tensor, kernel: tf.Tensor, window: Window) -> tf.Tensor:
    """Windows plus filter, ``[B, positions, taps, C]``."""
    batch, _, _, channels = static_shape(image)
    padded = pad_image(image, window, LOWEST / 2)
    seen = gather_rows(padded, window.axis_indices(0), window.axis_indices(1))
    seen = tf.reshape(seen, [batch, window.count, window.taps, channels])
    return seen + tf.reshape(kernel, [window.taps, channels])


def _received(image: tf.Tensor, kernel: tf.Tensor, gradient: tf.Tensor, window: Window) -> list[tf.Tensor]:
    lifted = _lifted(image, kernel, window)
    best = tf.reduce_max(lifted, axis=2, keepdims=True)
    given = tf.reshape(gradient, static_shape(best))
    return first_maximum(tf.split(lifted, window.taps, axis=2), best, given)
