"""Colours as hue, saturation and value, as in TensorFlow's kernels (Smith, "Color gamut transform pairs", 1978)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from edgefl_converters.emission.registry import Context, lowering


@lowering("RGBToHSV")
def rgb_to_hsv(op: Any, inputs: Sequence[tf.Tensor], context: Context) -> Sequence[tf.Tensor]:
    """The hue begins at red and is 0 for greys."""
    return [_to_hues(inputs[0])]


def _to_hues(colours: tf.Tensor) -> tf.Tensor:
    red, green, blue = tf.split(colours, 3, axis=-1)
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
    return tf.concat([hue + tf.cast(hue < 0.0, tf.float32), saturation, value], axis=-1)


@lowering("HSVToRGB")
def hsv_to_rgb(op: Any, inputs: Sequence[tf.Tensor], context: Context) -> Sequence[tf.Tensor]:
    """Three trapezoids of the hue."""
    return [_to_colours(*tf.split(inputs[0], 3, axis=-1))]


def _to_colours(hue: tf.Tensor, saturation: tf.Tensor, value: tf.Tensor) -> tf.Tensor:
    sixth = hue * 6.0
    shares = [tf.abs(sixth - 3.0) - 1.0, 2.0 - tf.abs(sixth - 2.0), 2.0 - tf.abs(sixth - 4.0)]
    unit = (tf.minimum(tf.maximum(share, 0.0), 1.0) for share in shares)
    return tf.concat([((1.0 - saturation) + saturation * each) * value for each in unit], axis=-1)


@lowering("AdjustContrastv2")
def adjust_contrast(op: Any, inputs: Sequence[tf.Tensor], context: Context) -> Sequence[tf.Tensor]:
    """Away from the mean of each channel of an image."""
    images, factor = inputs
    mean = tf.reduce_mean(images, axis=[-3, -2], keepdims=True)
    return [(images - mean) * factor + mean]


@lowering("AdjustSaturation")
def adjust_saturation(op: Any, inputs: Sequence[tf.Tensor], context: Context) -> Sequence[tf.Tensor]:
    """In hue, saturation and value, as long as a saturation is one."""
    hue, saturation, value = tf.split(_to_hues(inputs[0]), 3, axis=-1)
    saturation = tf.minimum(tf.maximum(saturation * inputs[1], 0.0), 1.0)
    return [_to_colours(hue, saturation, value)]


@lowering("AdjustHue")
def adjust_hue(op: Any, inputs: Sequence[tf.Tensor], context: Context) -> Sequence[tf.Tensor]:
    """Round the circle of hues."""
    hue, saturation, value = tf.split(_to_hues(inputs[0]), 3, axis=-1)
    turned = hue + inputs[1]
    turned = turned - tf.floor(turned)
    return [_to_colours(turned, saturation, value)]


def _is_positive(values: tf.Tensor) -> tf.Tensor:
    return tf.cast(values > 0.0, tf.float32)


def _not_zero(values: tf.Tensor) -> tf.Tensor:
    return values + tf.cast(tf.equal(values, 0.0), tf.float32)
