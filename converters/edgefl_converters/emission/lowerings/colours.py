"""Colours as hue, saturation and value, as in TensorFlow's kernels (Smith, "Color gamut transform pairs", 1978)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from edgefl_converters.emission.registry import Context, lowering


@lowering("RGBToHSV")
def rgb_to_hsv(op: Any, inputs: Sequence[tf.Tensor], context: Context) -> Sequence[tf.Tensor]:
    """The hue begins at red and is 0 for greys."""
    red, green, blue = tf.split(inputs[0], 3, axis=-1)
    value = tf.maximum(red, tf.maximum(green, blue))
    spread = value - tf.minimum(red, tf.minimum(green, blue))
    saturation = spread / _not_zero(value) * _is_positive(value)
    unit = 1.0 / (6.0 * _not_zero(spread))
    is_red = tf.cast(tf.equal(red, value), tf.float32)
    is_green = (1.0 - is_red) * tf.cast(tf.equal(green, value), tf.float32)
    is_blue = (1.0 - is_red) * (1.0 - is_green)
    hue = (
        is_red * unit * (green - blue)
        + is_green * (unit * (blue - red) + 2.0 / 6.0)
        + is_blue * (unit * (red - green) + 4.0 / 6.0)
    ) * _is_positive(spread)
    return [tf.concat([hue + tf.cast(hue < 0.0, tf.float32), saturation, value], axis=-1)]


@lowering("HSVToRGB")
def hsv_to_rgb(op: Any, inputs: Sequence[tf.Tensor], context: Context) -> Sequence[tf.Tensor]:
    """Three trapezoids of the hue."""
    hue, saturation, value = tf.split(inputs[0], 3, axis=-1)
    sixth = hue * 6.0
    shares = [tf.abs(sixth - 3.0) - 1.0, 2.0 - tf.abs(sixth - 2.0), 2.0 - tf.abs(sixth - 4.0)]
    unit = (tf.minimum(tf.maximum(share, 0.0), 1.0) for share in shares)
    return [tf.concat([((1.0 - saturation) + saturation * each) * value for each in unit], axis=-1)]


def _is_positive(values: tf.Tensor) -> tf.Tensor:
    return tf.cast(values > 0.0, tf.float32)


def _not_zero(values: tf.Tensor) -> tf.Tensor:
    return values + tf.cast(tf.equal(values, 0.0), tf.float32)
