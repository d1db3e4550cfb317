"""Convolutions with strides of 1 on few channels: each tap of each channel is a plane, the shifted image.

Windows as rows would be made of pieces of a few numbers each. Planes are made of whole rows of the image. For each
image of the batch they are the transposed matrix of its windows, as the filter's gradient needs it: a product for each
image, whose sum is more exact than one product over the positions of all of them, and as fast. The forward product
wants rows.
"""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf

from edgefl_converters.emission.lowerings.matmul import matmul
from edgefl_converters.emission.lowerings.windows import Window, shifted
from edgefl_converters.emission.registry import Context
from edgefl_converters.emission.traced_ops import static_shape

__all__ = ["convolve", "filter_gradient", "fits"]


def fits(window: Window) -> bool:
    """Tells whether neighbouring windows are one number apart, and more than a number wide."""
    return window.strides == (1, 1) and window.taps > 1


def convolve(image: tf.Tensor, kernel: tf.Tensor, window: Window, context: Context) -> tf.Tensor:
    """``[B, H, W, C]`` and a filter ``[h, w, C, F]`` to ``[B, *positions, F]``."""
    rows, columns, channels, filters = static_shape(kernel)
    taps = rows * columns * channels
    # Not one product for each image with the same filter: that is silently wrong on tflite-runtime 2.14.
    seen = tf.reshape(tf.transpose(_planes(image, window, context), [0, 2, 1]), [-1, taps])
    product = matmul(seen, tf.reshape(kernel, [taps, filters]))
    return tf.reshape(product, [static_shape(image)[0], *window.positions, filters])


def filter_gradient(
    image: tf.Tensor, gradient: tf.Tensor, shape: Sequence[int], window: Window, context: Context
) -> tf.Tensor:
    """The gradient of a filter of a shape ``[h, w, C, F]``, from the image and the output's gradient."""
    received = tf.reshape(gradient, [static_shape(image)[0], window.count, shape[3]])
    products = tf.raw_ops.BatchMatMulV2(x=_planes(image, window, context), y=received)
    return tf.reshape(tf.reduce_sum(products, 0), shape)


def _planes(image: tf.Tensor, window: Window, context: Context) -> tf.Tensor:
    """``[B, h * w * C, positions]``."""

    def make() -> tf.Tensor:
        batch, height, width, channels = static_shape(image)
        # With one channel this is only another name for the same numbers.
        planes = image if channels == 1 else tf.transpose(image, [0, 3, 1, 2])
        planes = tf.reshape(planes, [batch, channels, height, width])
        for axis in (1, 0):
            first = [tap * window.dilations[axis] - window.before[axis] for tap in range(window.kernel[axis])]
            copies = shifted(planes, 2 + axis, first, window.positions[axis])
            planes = copies[0] if len(copies) == 1 else tf.concat(copies, axis=1)
        return tf.reshape(planes, [batch, window.taps * channels, window.count])

    return context.shared(("planes", image.name, window), make)
