"""Gradients of depthwise convolutions, tap by tap: a tap is a shifted image times one number a channel."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from edgefl_converters.lowerings.registry import Context, constant, constant_filter, lowering, static_shape
from edgefl_converters.lowerings.windows import Window, interleave, margin, pad_image, phases, through_phases

__all__ = ["filter_gradient", "input_gradient"]


@lowering("DepthwiseConv2dNativeBackpropFilter")
def depthwise_backprop_filter(op: Any, inputs: Sequence[tf.Tensor], context: Context) -> Sequence[tf.Tensor]:
    """Each tap's gradient is the shifted image times the output's gradient, summed over rows and positions."""
    shape = [int(size) for size in constant(op, 1)]
    window = Window.of(op, static_shape(inputs[0])[1:3], shape[:2])
    return [filter_gradient(inputs[0], inputs[2], shape, window)]


@lowering("DepthwiseConv2dNativeBackpropInput")
def depthwise_backprop_input(op: Any, inputs: Sequence[tf.Tensor], context: Context) -> Sequence[tf.Tensor]:
    """For each phase of the stride a sum of shifted gradients times taps."""
    shape = [int(size) for size in constant(op, 0)]
    window = Window.of(op, shape[1:3], static_shape(inputs[1])[:2])
    return [input_gradient(inputs[1], inputs[2], shape, window)]


def filter_gradient(image: tf.Tensor, gradient: tf.Tensor, shape: Sequence[int], window: Window) -> tf.Tensor:
    """The gradient of a filter of a shape ``[h, w, C, multiplier]``, from image and output's gradient."""
    rows, columns, channels, multiplier = shape
    padded = _repeat_channels(pad_image(image, window), multiplier)
    sums = [tf.reduce_sum(tap * gradient, axis=[0, 1, 2]) for tap in _taps(padded, window)]
    return tf.reshape(tf.stack(sums), [rows, columns, channels, multiplier])


def input_gradient(kernel: tf.Tensor, gradient: tf.Tensor, shape: Sequence[int], window: Window) -> tf.Tensor:
    """The gradient of an image of a shape, from a filter ``[h, w, C, multiplier]`` and the output's gradient."""
    batch, height, width, channels = shape
    _, columns, _, multiplier = static_shape(kernel)
    filters = channels * multiplier
    fixed = constant_filter(kernel)
    if fixed is not None and multiplier == 1 and window.dilations == (1, 1):
        return through_phases(gradient, shape, window, functools.partial(_convolve_back, fixed))
    split, lengths = phases(window)
    margins = [margin(split, axis, window.positions[axis]) for axis in (0, 1)]
    if margins != [(0, 0), (0, 0)]:
        gradient = tf.pad(gradient, [[0, 0], *map(list, margins), [0, 0]])
    weights = tf.split(tf.reshape(kernel, [window.taps, filters]), window.taps, axis=0)
    outputs = []
    for phase in split:
        parts = []
        for row, first_row in zip(phase.taps[0], phase.windows[0][0]):
            for column, first_column in zip(phase.taps[1], phase.windows[1][0]):
                start = [0, int(first_row) + margins[0][0], int(first_column) + margins[1][0], 0]
                shifted = tf.slice(gradient, start, [batch, *lengths, filters])
                parts.append(shifted * tf.reshape(weights[row * columns + column], [1, 1, 1, filters]))
        outputs.append(_add_up(parts) if parts else tf.zeros([batch, *lengths, filters]))
    whole = interleave(outputs, window, lengths, batch, filters)
    if multiplier > 1:
        whole = tf.reduce_sum(tf.reshape(whole, [batch, height * width, channels, multiplier]), axis=3)
    return tf.reshape(whole, [batch, height, width, channels])


def _convolve_back(kernel: NDArray[np.float32], part: tf.Tensor, rows: list[int], columns: list[int]) -> tf.Tensor:
    flipped = np.ascontiguousarray(kernel[np.ix_(rows[::-1], columns[::-1])])
    return tf.nn.depthwise_conv2d(part, tf.constant(flipped), [1, 1, 1, 1], "VALID")


def _repeat_channels(image: tf.Tensor, times: int) -> tf.Tensor:
    if times == 1:
        return image
    indices = np.repeat(np.arange(static_shape(image)[3], dtype=np.int32), times)
    return tf.gather(image, indices, axis=3)


def _taps(padded: tf.Tensor, window: Window) -> Iterator[tf.Tensor]:
    """What each tap sees of a padded image; ``[B, positions, positions, C]``, tap by tap."""
    batch, _, _, channels = static_shape(padded)
    (down, across), size = window.strides, window.positions
    for row in range(window.kernel[0]):
        for column in range(window.kernel[1]):
            top, left = row * window.dilations[0], column * window.dilations[1]
            if down == across == 1:
                yield tf.slice(padded, [0, top, left, 0], [batch, *size, channels])
            else:
                bottom, right = top + (size[0] - 1) * down + 1, left + (size[1] - 1) * across + 1
                yield tf.strided_slice(
                    padded, [0, top, left, 0], [batch, bottom, right, channels], [1, down, across, 1]
                )


def _add_up(parts: Sequence[tf.Tensor]) -> tf.Tensor:
    total = parts[0]
    for part in parts[1:]:
        total = total + part
    return total
