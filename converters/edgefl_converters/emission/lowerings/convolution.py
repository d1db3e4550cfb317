"""Convolutions as gathered windows and one matrix product.

The runtimes' own CONV_2D is fast only with a constant filter, and the filter's gradient has no builtin form. Where the
strides are 1 and there are more than a few channels, it goes one axis after the other (`axiswise`). Else whole windows
are gathered once (im2col) and serve the forward product and the filter's gradient alike, and the gradient of the input
is a convolution of the output's gradient with the flipped filter, one product per phase of the stride. With a filter
that is not trained these stay convolutions, which XNNPACK computes.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from edgefl_converters.emission.lowerings import axiswise, depthwise, planes
from edgefl_converters.emission.lowerings.matmul import matmul
from edgefl_converters.emission.lowerings.windows import (
    Window,
    gather_rows,
    interleave,
    pad_gradient,
    patches,
    phases,
    through_phases,
)
from edgefl_converters.emission.registry import Context, lowering
from edgefl_converters.emission.traced_ops import attribute, constant, static_shape

__all__ = ["convolve", "filter_gradient", "input_gradient"]


@lowering("Conv2D")
def conv2d(op: Any, inputs: Sequence[tf.Tensor], context: Context) -> Sequence[tf.Tensor] | None:
    """Windows times filter; a constant filter stays CONV_2D, which is fast then."""
    image, kernel = inputs
    window = Window.of(op, static_shape(image)[1:3], static_shape(kernel)[:2])
    if _is_depthwise(window, static_shape(image)[3], static_shape(kernel)[2]):
        by_channel = _by_channel(kernel, static_shape(image)[3], context)
        padding = op.get_attr("explicit_paddings") if attribute(op, "padding") == "EXPLICIT" else []
        return [
            tf.raw_ops.DepthwiseConv2dNative(
                input=image,
                filter=by_channel,
                strides=op.get_attr("strides"),
                padding=attribute(op, "padding"),
                explicit_paddings=padding,
            )
        ]
    if context.constants.value(kernel) is not None and attribute(op, "padding") != "EXPLICIT":
        return None
    return [convolve(image, kernel, window, context)]


@lowering("Conv2DBackpropFilter")
def conv2d_backprop_filter(op: Any, inputs: Sequence[tf.Tensor], context: Context) -> Sequence[tf.Tensor]:
    """Transposed windows times the output's gradient."""
    image, gradient = inputs[0], inputs[2]
    shape = [int(size) for size in constant(op, 1)]
    window = Window.of(op, static_shape(image)[1:3], (shape[0], shape[1]))
    channels = static_shape(image)[3]
    if _is_depthwise(window, channels, shape[2]):
        by_channel = [shape[0], shape[1], channels, shape[3] // channels]
        return [tf.reshape(depthwise.filter_gradient(image, gradient, by_channel, window, context), shape)]
    return [filter_gradient(image, gradient, shape, window, context)]


@lowering("Conv2DBackpropInput")
def conv2d_backprop_input(op: Any, inputs: Sequence[tf.Tensor], context: Context) -> Sequence[tf.Tensor]:
    """Windows over the output's gradient times the exchanged filter; also a transposed convolution."""
    kernel, gradient = inputs[1], inputs[2]
    shape = [int(size) for size in constant(op, 0)]
    window = Window.of(op, (shape[1], shape[2]), static_shape(kernel)[:2])
    if _is_depthwise(window, shape[3], static_shape(kernel)[2]):
        return [depthwise.input_gradient(_by_channel(kernel, shape[3], context), gradient, shape, window, context)]
    fixed = context.constants.value(kernel)
    if fixed is not None and fixed.shape[2] == shape[3] and window.dilations == (1, 1):
        return [through_phases(gradient, shape, window, functools.partial(_convolve_back, fixed, context))]
    return [input_gradient(kernel, gradient, shape, window, context)]


def _is_depthwise(window: Window, channels: int, depth: int) -> bool:
    """A convolution of hundreds of groups of one channel each (ConvNeXt) that DEPTHWISE_CONV_2D can do."""
    return depth == 1 < channels and window.strides[0] == window.strides[1] and window.dilations == (1, 1)


def _by_channel(kernel: tf.Tensor, channels: int, context: Context) -> tf.Tensor:
    """A filter ``[h, w, 1, C x multiplier]`` as DEPTHWISE_CONV_2D has it; a constant stays one."""
    rows, columns, _, filters = static_shape(kernel)
    shape = [rows, columns, channels, filters // channels]
    fixed = context.constants.value(kernel)
    return tf.reshape(kernel, shape) if fixed is None else context.constants.tensor(fixed.reshape(shape))


def _convolve_back(
    kernel: NDArray[np.float32], context: Context, part: tf.Tensor, rows: list[int], columns: list[int]
) -> tf.Tensor:
    exchanged = kernel[np.ix_(rows[::-1], columns[::-1])].transpose(0, 1, 3, 2)
    return tf.nn.conv2d(part, context.constants.tensor(np.ascontiguousarray(exchanged)), 1, "VALID")


def convolve(image: tf.Tensor, kernel: tf.Tensor, window: Window, context: Context) -> tf.Tensor:
    """``[B, H, W, C]`` and a filter ``[h, w, C / groups, F]`` to ``[B, positions, F]``."""
    batch, _, _, channels = static_shape(image)
    _, _, depth, filters = static_shape(kernel)
    groups = channels // depth
    outputs = []
    for part, weights in zip(_split(image, groups, context), _split(kernel, groups, context)):
        if axiswise.pays(window, depth, filters // groups):
            outputs.append(axiswise.convolve(part, weights, window, context))
        elif planes.fits(window):
            outputs.append(planes.convolve(part, weights, window, context))
        else:
            flat = tf.reshape(weights, [window.taps * depth, filters // groups])
            product = matmul(patches(part, window, context), flat)
            outputs.append(tf.reshape(product, [batch, *window.positions, filters // groups]))
    return _join(outputs)


def filter_gradient(
    image: tf.Tensor, gradient: tf.Tensor, shape: Sequence[int], window: Window, context: Context
) -> tf.Tensor:
    """The gradient of a filter of a shape, from the image and the output's gradient."""
    batch, _, _, channels = static_shape(image)
    rows, columns, depth, filters = shape
    groups = channels // depth
    own_shape = [rows, columns, depth, filters // groups]
    parts = []
    for part, own in zip(_split(image, groups, context), _split(gradient, groups, context)):
        if axiswise.pays(window, depth, filters // groups):
            parts.append(axiswise.filter_gradient(part, own, own_shape, window, context))
        elif planes.fits(window):
            parts.append(planes.filter_gradient(part, own, own_shape, window, context))
        else:
            flat = tf.reshape(own, [batch * window.count, filters // groups])
            product = matmul(patches(part, window, context), flat, transpose_left=True)
            parts.append(tf.reshape(product, own_shape))
    return _join(parts)


def input_gradient(
    kernel: tf.Tensor, gradient: tf.Tensor, shape: Sequence[int], window: Window, context: Context
) -> tf.Tensor:
    """The gradient of an image of a shape, from the filter and the output's gradient."""
    batch, _, _, channels = shape
    depth = static_shape(kernel)[2]
    groups = channels // depth
    parts = []
    for own, weights in zip(_split(gradient, groups, context), _split(kernel, groups, context)):
        if axiswise.pays(window, static_shape(own)[3], depth):
            parts.append(axiswise.input_gradient(weights, own, window, context))
        else:
            parts.append(_input_gradient(own, weights, window, batch, depth))
    return _join(parts)


def _input_gradient(gradient: tf.Tensor, kernel: tf.Tensor, window: Window, batch: int, channels: int) -> tf.Tensor:
    filters = static_shape(kernel)[3]
    split, lengths = phases(window)
    gradient, margins = pad_gradient(gradient, window)
    if window.taps == 1 and window.strides == (1, 1):
        product = matmul(tf.reshape(gradient, [-1, filters]), tf.transpose(tf.reshape(kernel, [channels, filters])))
        return tf.reshape(product, [batch, *window.image, channels])
    exchanged = tf.reshape(tf.transpose(kernel, [0, 1, 3, 2]), [window.taps, filters, channels])
    outputs = []
    for phase in split:
        taps = [row * window.kernel[1] + column for row in phase.taps[0] for column in phase.taps[1]]
        if not taps:
            outputs.append(tf.zeros([batch, *lengths, channels]))
            continue
        rows, columns = (indices + first for indices, (first, _) in zip(phase.windows, margins))
        reached = tf.reshape(
            gather_rows(gradient, rows, columns), [batch * lengths[0] * lengths[1], len(taps) * filters]
        )
        chosen = exchanged if taps == list(range(window.taps)) else tf.gather(exchanged, np.asarray(taps, np.int32))
        product = matmul(reached, tf.reshape(chosen, [len(taps) * filters, channels]))
        outputs.append(tf.reshape(product, [batch, *lengths, channels]))
    return interleave(outputs, window, lengths, batch, channels)


def _split(tensor: tf.Tensor, groups: int, context: Context) -> Sequence[tf.Tensor]:
    if groups == 1:
        return [tensor]
    parts: Sequence[tf.Tensor] = context.shared(
        ("groups", tensor.name, groups), lambda: tf.split(tensor, groups, axis=-1)
    )
    return parts


def _join(parts: Sequence[tf.Tensor]) -> tf.Tensor:
    return parts[0] if len(parts) == 1 else tf.concat(parts, axis=-1)
