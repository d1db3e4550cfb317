"""Convolutions with strides of 1 on few channels: each tap of each channel is a plane, the shifted image.

Windows as rows would be made of pieces of a few numbers each. Planes are made of whole rows of the image; they are the
transposed matrix of windows, as the filter's gradient needs it, and the forward product transposes them in one go.
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
    flat = tf.reshape(kernel, [rows * columns * channels, filters])
    product = matmul(_planes(image, window, context), flat, transpose_left=True)
    return tf.reshape(product, [static_shape(image)[0], *window.positions, filters])


def filter_gradient(
    image: tf.Tensor, gradient: tf.Tensor, shape: Sequence[int], window: Window, context: Context
) -> tf.Tensor:
    """The gradient of a filter of a shape ``[h, w, C, F]``, from the image and the output's gradient."""
    return tf.reshape(matmul(_planes(image, window, context), tf.reshape(gradient, [-1, shape[3]])), shape)


def _planes(image: tf.Tensor, window: Window, context: Context) -> tf.Tensor:
    """``[h * w * C, B * positions]``."""

    def make() -> tf.Tensor:
        batch, height, width, channels = static_shape(image)
        # With one channel this is only another name for the same numbers.
        planes = image if channels == 1 else tf.transpose(image, [3, 0, 1, 2])
        planes = tf.reshape(planes, [channels, batch, height, width])
        for axis in (1, 0):
            first = [tap * window.dilations[axis] - window.before[axis] for tap in range(window.kernel[axis])]
            copies = shifted(planes, 2 + axis, first, window.positions[axis])
            planes = copies[0] if len(copies) == 1 else tf.concat(copies, axis=0)
        return tf.reshape(planes, [window.taps * channels, batch * window.count])

    return context.shared(("planes", image.name, window), make)
