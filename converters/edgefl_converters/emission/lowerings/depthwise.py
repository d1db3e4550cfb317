"""Gradients of depthwise convolutions, tap by tap: a tap is a shifted gradient times one number a channel.

What a tap sees is a shifted part of the output's gradient: times the image and summed it is the tap's gradient, times
the tap it is the image's, and both share it. Shifting the image instead would do for the filter alone, and runtimes
would make all its copies before the backward pass begins, and keep them.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from edgefl_converters.emission.lowerings.reduction import staged_sum
from edgefl_converters.emission.lowerings.windows import (
    Window,
    interleave,
    pad_gradient,
    pad_once,
    part,
    phases,
    through_phases,
)
from edgefl_converters.emission.registry import Context, lowering
from edgefl_converters.emission.traced_ops import constant, static_shape

__all__ = ["filter_gradient", "input_gradient"]


@lowering("DepthwiseConv2dNativeBackpropFilter")
def depthwise_backprop_filter(op: Any, inputs: Sequence[tf.Tensor], context: Context) -> Sequence[tf.Tensor]:
    """Each tap's gradient is the image times the shifted gradient of the output, summed over rows and positions."""
    shape = [int(size) for size in constant(op, 1)]
    window = Window.of(op, static_shape(inputs[0])[1:3], shape[:2])
    return [filter_gradient(inputs[0], inputs[2], shape, window, context)]


@lowering("DepthwiseConv2dNativeBackpropInput")
def depthwise_backprop_input(op: Any, inputs: Sequence[tf.Tensor], context: Context) -> Sequence[tf.Tensor]:
    """A convolution with the flipped filter; with strides, for each phase a sum of shifted gradients times taps."""
    shape = [int(size) for size in constant(op, 0)]
    window = Window.of(op, shape[1:3], static_shape(inputs[1])[:2])
    return [input_gradient(inputs[1], inputs[2], shape, window, context)]


def filter_gradient(
    image: tf.Tensor, gradient: tf.Tensor, shape: Sequence[int], window: Window, context: Context
) -> tf.Tensor:
    """The gradient of a filter of a shape ``[h, w, C, multiplier]``, from image and output's gradient."""
    rows, columns, channels, multiplier = shape
    by_phase = _by_phase(_repeat_channels(image, multiplier), window)
    sums: dict[int, tf.Tensor] = {}
    for seen, taps in zip(by_phase, _shifted_gradients(gradient, window, context)):
        for tap, shifted in taps:
            sums[tap] = staged_sum(seen * shifted, [1, 2])
    # Rows of the batch last, of all taps at once: two short sums are more exact than a long one.
    total = tf.reduce_sum(tf.stack([sums[tap] for tap in range(window.taps)]), 1)
    return tf.reshape(total, [rows, columns, channels, multiplier])


def input_gradient(
    kernel: tf.Tensor, gradient: tf.Tensor, shape: Sequence[int], window: Window, context: Context
) -> tf.Tensor:
    """The gradient of an image of a shape, from a filter ``[h, w, C, multiplier]`` and the output's gradient."""
    batch, height, width, channels = shape
    multiplier = static_shape(kernel)[3]
    filters = channels * multiplier
    fixed = context.constants.value(kernel)
    if multiplier == 1 and window.dilations == (1, 1):
        if fixed is not None:
            return through_phases(gradient, shape, window, functools.partial(_convolve_back, fixed, context))
        if window.strides == (1, 1):
            # On ARM half the instructions of shifted gradients. On x86 as fast with ai-edge-litert; tflite-runtime 2.14
            # has no fast kernel there and takes a sixth longer for a step of MobileNetV2.
            flipped = tf.reshape(tf.reverse(tf.reshape(kernel, [window.taps, filters]), [0]), static_shape(kernel))
            return tf.nn.depthwise_conv2d(pad_gradient(gradient, window)[0], flipped, [1, 1, 1, 1], "VALID")
    weights = tf.split(tf.reshape(kernel, [window.taps, filters]), window.taps, axis=0)
    _, lengths = phases(window)
    outputs = []
    for taps in _shifted_gradients(gradient, window, context):
        parts = [shifted * tf.reshape(weights[tap], [1, 1, 1, filters]) for tap, shifted in taps]
        outputs.append(_add_up(parts) if parts else tf.zeros([batch, *lengths, filters]))
    whole = interleave(outputs, window, lengths, batch, filters)
    if multiplier > 1:
        whole = tf.reduce_sum(tf.reshape(whole, [batch, height * width, channels, multiplier]), axis=3)
        whole = tf.reshape(whole, [batch, height, width, channels])
    return whole


def _convolve_back(
    kernel: NDArray[np.float32], context: Context, seen: tf.Tensor, rows: list[int], columns: list[int]
) -> tf.Tensor:
    flipped = np.ascontiguousarray(kernel[np.ix_(rows[::-1], columns[::-1])])
    return tf.nn.depthwise_conv2d(seen, context.constants.tensor(flipped), [1, 1, 1, 1], "VALID")


def _repeat_channels(image: tf.Tensor, times: int) -> tf.Tensor:
    if times == 1:
        return image
    indices = np.repeat(np.arange(static_shape(image)[3], dtype=np.int32), times)
    return tf.gather(image, indices, axis=3)


def _shifted_gradients(gradient: tf.Tensor, window: Window, context: Context) -> Iterator[list[tuple[int, tf.Tensor]]]:
    """Yields each phase's taps of the image: number, and gradients of the windows that see the phase through it."""
    split, lengths = phases(window)
    padded, margins = context.shared(("padded gradient", gradient.name, window), lambda: pad_gradient(gradient, window))
    for phase in split:
        taps = []
        for row, first_row in zip(phase.taps[0], phase.windows[0][0]):
            for column, first_column in zip(phase.taps[1], phase.windows[1][0]):
                begin = int(first_row) + margins[0][0], int(first_column) + margins[1][0]
                bounds = {1: (begin[0], lengths[0]), 2: (begin[1], lengths[1])}
                key = ("shifted gradient", gradient.name, window, begin)
                shifted = context.shared(key, functools.partial(part, padded, bounds))
                taps.append((row * window.kernel[1] + column, shifted))
        yield taps


def _by_phase(image: tf.Tensor, window: Window) -> list[tf.Tensor]:
    """The positions of each phase of the stride as an image of its own, zeros behind the image's end."""
    down, across = window.strides
    if down == across == 1:
        return [image]
    batch, height, width, channels = static_shape(image)
    _, (rows, columns) = phases(window)
    if (rows * down, columns * across) != (height, width):
        image = pad_once(image, [[0, 0], [0, rows * down - height], [0, columns * across - width], [0, 0]])
    # Neighbours in an axis of their own: a slice with a stride is not delegated.
    split = tf.reshape(image, [batch * rows, down, columns, across * channels])
    parts = [
        part(split, {1: (row, 1), 3: (column * channels, channels)}) for row in range(down) for column in range(across)
    ]
    return [tf.reshape(each, [batch, rows, columns, channels]) for each in parts]


def _add_up(parts: Sequence[tf.Tensor]) -> tf.Tensor:
    total = parts[0]
    for each in parts[1:]:
        total = total + each
    return total
