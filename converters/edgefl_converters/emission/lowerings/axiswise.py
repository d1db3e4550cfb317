"""Convolutions with strides of 1, one axis after the other: windows are gathered along the width only.

Gathering whole windows copies each number ``h x w`` times, and the gradient of the input does so with the channels of
the output. Here an image is gathered along its width, ``w`` times. One product then gives what each row of the image
adds to all ``h`` rows of the output that see it, and these terms are shifted by rows and added up. The gradient of the
input goes the other way round: gathered along the height, which serves the filter's gradient too, then shifted along
the width.

The gathering along one axis is that of MEC (Cho and Brand 2017, section 3), the shifted sum that of kn2row (Vasudevan
et al. 2017, section 3). Measured for filters of 3 x 3 and 5 x 5 on 16 to 128 channels, a convolution with both
gradients takes 0.59 to 0.82 of the time of whole windows on ai-edge-litert, 0.52 to 0.76 on tflite-runtime 2.14, and
half the memory. Slices that are joined keep all of it in one partition of XNNPACK, a GATHER would not.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import tensorflow as tf

from edgefl_converters.emission.lowerings.matmul import matmul
from edgefl_converters.emission.lowerings.windows import Window, part, shifted
from edgefl_converters.emission.registry import Context
from edgefl_converters.emission.traced_ops import static_shape

__all__ = ["convolve", "filter_gradient", "input_gradient", "pays"]

_NARROW = 8
"""Up to this many channels a pixel is too short to be copied one by one."""

_WORTH_A_CONVOLUTION = 3
"""Terms from which on their sum is one convolution of ones; two are one addition."""


def pays(window: Window, gathered: int, added: int) -> bool:
    """Tells whether this way moves no more numbers than gathering whole windows.

    Args:
        window: of the convolution.
        gathered: channels of what is gathered.
        added: channels of what is added up.
    """
    rows, columns = window.kernel
    cheap = rows == 1 or columns * gathered + rows * added <= window.taps * gathered
    return window.strides == (1, 1) and gathered > _NARROW and cheap


def convolve(image: tf.Tensor, kernel: tf.Tensor, window: Window, context: Context) -> tf.Tensor:
    """``[B, H, W, C]`` and a filter ``[h, w, C, F]`` to ``[B, *positions, F]``."""
    batch, height, _, _ = static_shape(image)
    rows, columns, channels, filters = static_shape(kernel)
    down, across = window.positions
    weights = tf.reshape(tf.transpose(kernel, [1, 2, 0, 3]), [columns * channels, rows * filters])
    seen = _along_width(image, window, context)
    if rows == 1:  # nothing is shifted: one product over all images, whose windows the filter's gradient reads too
        product = matmul(tf.reshape(seen, [-1, columns * channels]), weights)
        return tf.reshape(product, [batch, down, across, filters])
    seen = tf.reshape(seen, [batch, height * across, columns * channels])
    offsets = [(row * window.dilations[0] - window.before[0]) * across for row in range(rows)]
    # A row is `across` places of one long axis: no reshape of the terms, which the runtimes would copy.
    summed = _shifted_sum(matmul(seen, weights), 1, offsets, down * across)
    return tf.reshape(summed, [batch, down, across, filters])


def filter_gradient(
    image: tf.Tensor, gradient: tf.Tensor, shape: Sequence[int], window: Window, context: Context
) -> tf.Tensor:
    """The gradient of a filter of a shape ``[h, w, C, F]``, from the image and the output's gradient."""
    rows, columns, channels, filters = shape
    seen, received = _along_width(image, window, context), _along_height(gradient, window, context)
    product = matmul(
        tf.reshape(seen, [-1, columns * channels]), tf.reshape(received, [-1, rows * filters]), transpose_left=True
    )
    return tf.transpose(tf.reshape(product, [columns, channels, rows, filters]), [2, 0, 1, 3])


def input_gradient(kernel: tf.Tensor, gradient: tf.Tensor, window: Window, context: Context) -> tf.Tensor:
    """The gradient of an image, ``[B, H, W, C]``, from a filter ``[h, w, C, F]`` and the output's gradient."""
    rows, columns, channels, filters = static_shape(kernel)
    weights = tf.reshape(tf.transpose(kernel, [0, 3, 1, 2]), [rows * filters, columns * channels])
    received = _along_height(gradient, window, context)
    terms = matmul(tf.reshape(received, [-1, rows * filters]), weights)
    terms = tf.reshape(terms, [*static_shape(received)[:3], columns * channels])
    offsets = [window.before[1] - column * window.dilations[1] for column in range(columns)]
    return _shifted_sum(terms, 2, offsets, window.image[1])


def _along_width(image: tf.Tensor, window: Window, context: Context) -> tf.Tensor:
    """Returns what a window's columns see of each row of an image: ``[B, H, positions, w * C]``."""
    offsets = [column * window.dilations[1] - window.before[1] for column in range(window.kernel[1])]
    return context.shared(
        ("along width", image.name, window), lambda: _joined(shifted(image, 2, offsets, window.positions[1]))
    )


def _along_height(gradient: tf.Tensor, window: Window, context: Context) -> tf.Tensor:
    """The gradients of the windows whose rows see each row of the image: ``[B, H, positions, h * F]``."""
    offsets = [window.before[0] - row * window.dilations[0] for row in range(window.kernel[0])]
    return context.shared(
        ("along height", gradient.name, window), lambda: _joined(shifted(gradient, 1, offsets, window.image[0]))
    )


def _joined(copies: Sequence[tf.Tensor]) -> tf.Tensor:
    return copies[0] if len(copies) == 1 else tf.concat(copies, axis=-1)


def _shifted_sum(terms: tf.Tensor, axis: int, offsets: Sequence[int], length: int) -> tf.Tensor:
    """Adds up blocks of the last axis, each shifted along another one.

    Args:
        terms: ``[..., len(offsets) * C]``.
        axis: along which they are shifted.
        offsets: for each block, at which place of the axis the sum's first place finds its term; outside are zeros.
        length: of the sum along the axis.
    """
    summed = _diagonal_sum(terms, axis, offsets, length)
    return _sum_of_parts(terms, axis, offsets, length) if summed is None else summed


def _diagonal_sum(terms: tf.Tensor, axis: int, offsets: Sequence[int], length: int) -> tf.Tensor | None:
    """The shifted sum as one convolution of each channel with ones, for evenly spaced offsets.

    With every block as a row of its own, places and blocks are one axis. On it the terms of a sum are as far from each
    other as a step of offsets and a block, and one sum is as many rows behind the last one as there are blocks: a
    dilation and a stride. A convolution of 5 x 5 from 32 to 64 channels on 14 x 14 pixels is added up so in 0.4 of the
    time that slices, padding and additions take, on both runtimes.

    Returns:
        None where `terms` would have to be padded first, or there is another axis between these two.
    """
    shape, blocks = static_shape(terms), len(offsets)
    places, channels = shape[axis], shape[-1] // blocks
    steps = {after - before for before, after in pairwise(offsets)}
    if blocks < _WORTH_A_CONVOLUTION or len(steps) != 1 or axis != len(shape) - 2:
        return None
    dilation = blocks * steps.pop() + 1
    rows = [blocks * offsets[0], blocks * offsets[0] + (blocks - 1) * dilation]  # of the first sum
    first, reach = min(rows), abs(dilation) * (blocks - 1) + 1
    # What TensorFlow pads by itself, in front and behind: for "SAME" just as many sums as places.
    around = max(0, blocks * (length - 1) + reach - blocks * places)
    if first == 0 and length == (blocks * places - reach) // blocks + 1:
        padding = "VALID"
    elif first == -(around // 2) and length == places:
        padding = "SAME"
    else:
        return None
    summed = tf.raw_ops.DepthwiseConv2dNative(
        input=tf.reshape(terms, [-1, blocks * places, 1, channels]),
        filter=tf.ones([blocks, 1, channels, 1]),
        strides=[1, blocks, blocks, 1],
        dilations=[1, abs(dilation), 1, 1],
        padding=padding,
    )
    return tf.reshape(summed, [*shape[:axis], length, channels])


def _sum_of_parts(terms: tf.Tensor, axis: int, offsets: Sequence[int], length: int) -> tf.Tensor:
    """The shifted sum of whatever offsets: slices, padding and additions."""
    shape = list(static_shape(terms))
    places, last, channels = shape[axis], len(shape) - 1, shape[-1] // len(offsets)
    total = None
    for block, offset in enumerate(offsets):
        begin, end = max(0, -offset), min(length, places - offset)
        if begin >= end:
            continue
        term = part(terms, {axis: (begin + offset, end - begin), last: (block * channels, channels)})
        if (begin, end) != (0, length):
            term = tf.pad(term, [[begin, length - end] if each == axis else [0, 0] for each in range(len(shape))])
        total = term if total is None else total + term
    if total is None:
        shape[axis], shape[-1] = length, channels
        return tf.zeros(shape)
    return total
