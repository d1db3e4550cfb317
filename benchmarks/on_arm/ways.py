"""Functions that compute the same thing in different ways: what an op is in TensorFlow, and by which builtin ops."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

__all__ = [
    "both_first",
    "conv",
    "conv_filter",
    "conv_filter_as_conv",
    "conv_gather",
    "conv_input",
    "conv_slices",
    "depthwise",
    "depthwise_filter",
    "depthwise_filter_as_depthwise",
    "depthwise_input",
    "depthwise_input_as_depthwise",
    "depthwise_taps",
    "exchanged",
    "left_first",
    "matmul",
    "max_pool_grad",
    "max_pool_grad_broadcast",
    "max_pool_grad_gather",
    "max_pool_grad_resize",
    "rank_3",
    "relu6_grad",
    "relu6_grad_comparing",
    "relu_grad",
    "right_first",
    "rows_table",
    "strided_filter",
    "strided_filter_reshaped",
    "strided_filter_taps",
]


def conv(image: Any, kernel: Any, stride: int = 1) -> Any:
    return tf.raw_ops.Conv2D(input=image, filter=kernel, strides=[1, stride, stride, 1], padding="SAME")


def conv_filter(size: int, channels: int) -> Callable[..., Any]:
    def gradient(image: Any, gradient: Any) -> Any:
        shape = [size, size, channels, gradient.shape[3]]
        return tf.raw_ops.Conv2DBackpropFilter(
            input=image, filter_sizes=shape, out_backprop=gradient, strides=[1, 1, 1, 1], padding="SAME"
        )

    return gradient


def conv_filter_as_conv(size: int) -> Callable[..., Any]:
    """The batch takes the place of the channels, and the output's gradient that of the filter."""

    def gradient(image: Any, gradient: Any) -> Any:
        around = size // 2
        wide = tf.pad(tf.transpose(image, [3, 1, 2, 0]), [[0, 0], [around, around], [around, around], [0, 0]])
        product = tf.nn.conv2d(wide, tf.transpose(gradient, [1, 2, 0, 3]), 1, "VALID")
        return tf.transpose(product, [1, 2, 0, 3])

    return gradient


def conv_input(kernel: Any, gradient: Any) -> Any:
    shape = [*gradient.shape[:3], kernel.shape[2]]
    return tf.raw_ops.Conv2DBackpropInput(
        input_sizes=shape, filter=kernel, out_backprop=gradient, strides=[1, 1, 1, 1], padding="SAME"
    )


def rows_table(size: int, image: int) -> Any:
    at = np.arange(image)[:, None] + np.arange(size)
    wide = image + size - 1
    return (at[:, None, :, None] * wide + at[None, :, None, :]).reshape(image * image, size * size).astype(np.int32)


def conv_slices(image: Any, kernel: Any) -> Any:
    """Windows by slices and one concatenation, then a product."""
    size, batch, side, channels = kernel.shape[0], image.shape[0], image.shape[1], image.shape[3]
    around = size // 2
    wide = tf.pad(image, [[0, 0], [around, around], [around, around], [0, 0]])
    taps = [
        tf.slice(wide, [0, row, column, 0], [batch, side, side, channels])
        for row in range(size)
        for column in range(size)
    ]
    rows = tf.reshape(tf.concat(taps, 3), [batch * side * side, size * size * channels])
    product = rank_3(rows, tf.reshape(kernel, [size * size * channels, -1]))
    return tf.reshape(product, [batch, side, side, kernel.shape[3]])


def conv_gather(transposed: bool) -> Callable[..., Any]:
    """Windows by one GATHER, then a product whose right side is transposed first or not."""

    def convolve(image: Any, kernel: Any) -> Any:
        size, batch, side, channels = kernel.shape[0], image.shape[0], image.shape[1], image.shape[3]
        around, taps = size // 2, size * size * image.shape[3]
        wide = tf.pad(image, [[0, 0], [around, around], [around, around], [0, 0]])
        flat = tf.reshape(wide, [batch, (side + 2 * around) ** 2, channels])
        rows = tf.reshape(tf.gather(flat, rows_table(size, side), axis=1), [batch * side * side, taps])
        weights = tf.reshape(kernel, [taps, -1])
        return tf.reshape((right_first if transposed else rank_3)(rows, weights), [batch, side, side, kernel.shape[3]])

    return convolve


def matmul(left: bool = False, right: bool = False) -> Callable[..., Any]:
    return lambda x, y: tf.raw_ops.MatMul(a=x, b=y, transpose_a=left, transpose_b=right)


def rank_3(x: Any, y: Any, *, left: bool = False, right: bool = False) -> Any:
    """Rank 3, the sides transposed by the product itself."""
    product = tf.raw_ops.BatchMatMulV2(x=tf.expand_dims(x, 0), y=tf.expand_dims(y, 0), adj_x=left, adj_y=right)
    return tf.squeeze(product, 0)


def right_first(x: Any, y: Any) -> Any:
    """The right side is transposed by an op of its own, and back by the product."""
    return rank_3(x, tf.transpose(y), right=True)


def left_first(x: Any, y: Any) -> Any:
    """``x^T y``, transposed by an op of its own."""
    return rank_3(tf.transpose(x), y)


def both_first(x: Any, y: Any) -> Any:
    """``x^T y``, both transposed by ops of their own, and the right one back by the product."""
    return rank_3(tf.transpose(x), tf.transpose(y), right=True)


def exchanged(x: Any, y: Any) -> Any:
    """``x^T y`` as the transpose of ``y^T x``."""
    return tf.transpose(rank_3(y, x, left=True))


def max_pool_grad(image: Any, gradient: Any) -> Any:
    output = tf.nn.max_pool2d(image, 2, 2, "VALID")
    return tf.raw_ops.MaxPoolGrad(
        orig_input=image, orig_output=output, grad=gradient, ksize=[1, 2, 2, 1], strides=[1, 2, 2, 1], padding="VALID"
    )


def max_pool_grad_gather(image: Any, gradient: Any) -> Any:
    """Every element asks by GATHER for its window's maximum and gradient; ties all receive it."""
    batch, side, _, channels = image.shape
    output = tf.nn.max_pool2d(image, 2, 2, "VALID")
    at = np.arange(side) // 2
    table = (at[:, None] * (side // 2) + at[None, :]).reshape(-1).astype(np.int32)
    spread = [
        tf.reshape(tf.gather(tf.reshape(each, [batch, -1, channels]), table, axis=1), image.shape)
        for each in (output, gradient)
    ]
    return tf.cast(image >= spread[0], tf.float32) * spread[1]


def max_pool_grad_resize(image: Any, gradient: Any) -> Any:
    """Every element sees its window's maximum and gradient by RESIZE_NEAREST_NEIGHBOR; ties all receive it."""
    side = image.shape[1]
    output = tf.nn.max_pool2d(image, 2, 2, "VALID")
    spread = [
        tf.compat.v1.image.resize_nearest_neighbor(each, [side, side], half_pixel_centers=True)
        for each in (output, gradient)
    ]
    return spread[1] * (1.0 - tf.minimum((spread[0] - image) * 3.4e38, 1.0))


def max_pool_grad_broadcast(image: Any, gradient: Any) -> Any:
    """Windows as dimensions of their own, so that arithmetic repeats maximum and gradient; ties all receive it."""
    batch, side, _, channels = image.shape
    half = side // 2
    output = tf.reshape(tf.nn.max_pool2d(image, 2, 2, "VALID"), [batch * half, 1, half, 1, channels])
    left = output - tf.reshape(image, [batch * half, 2, half, 2, channels])
    passed = 1.0 - tf.minimum(left * 3.4e38, 1.0)
    return tf.reshape(passed * tf.reshape(gradient, [batch * half, 1, half, 1, channels]), image.shape)


def depthwise(image: Any, kernel: Any) -> Any:
    return tf.nn.depthwise_conv2d(image, kernel, [1, 1, 1, 1], "SAME")


def depthwise_taps(image: Any, kernel: Any) -> Any:
    """A sum of shifted images times taps."""
    batch, side, _, channels = image.shape
    wide = tf.pad(image, [[0, 0], [1, 1], [1, 1], [0, 0]])
    total = None
    for row in range(3):
        for column in range(3):
            tap = tf.slice(kernel, [row, column, 0, 0], [1, 1, channels, 1])
            part = tf.slice(wide, [0, row, column, 0], [batch, side, side, channels])
            part = part * tf.reshape(tap, [1, 1, 1, channels])
            total = part if total is None else total + part
    return total


def depthwise_filter(image: Any, gradient: Any) -> Any:
    return tf.raw_ops.DepthwiseConv2dNativeBackpropFilter(
        input=image,
        filter_sizes=[3, 3, image.shape[3], 1],
        out_backprop=gradient,
        strides=[1, 1, 1, 1],
        padding="SAME",
    )


def strided_filter(image: Any, gradient: Any) -> Any:
    return tf.raw_ops.DepthwiseConv2dNativeBackpropFilter(
        input=image, filter_sizes=[3, 3, image.shape[3], 1], out_backprop=gradient, strides=[1, 2, 2, 1], padding="SAME"
    )


def strided_filter_taps(image: Any, gradient: Any) -> Any:
    """What each tap sees is a STRIDED_SLICE."""
    batch, side, _, channels = image.shape
    wide = tf.pad(image, [[0, 0], [0, 1], [0, 1], [0, 0]])
    sums = []
    for row in range(3):
        for column in range(3):
            end = [batch, row + side - 1, column + side - 1, channels]
            tap = tf.strided_slice(wide, [0, row, column, 0], end, [1, 2, 2, 1])
            sums.append(tf.reduce_sum(tap * gradient, axis=[0, 1, 2]))
    return tf.reshape(tf.stack(sums), [3, 3, channels, 1])


def strided_filter_reshaped(image: Any, gradient: Any) -> Any:
    """With rows and columns modulo the stride as dimensions of their own, what each tap sees is a SLICE."""
    batch, side, _, channels = image.shape
    half = side // 2
    wide = tf.pad(image, [[0, 0], [0, 2], [0, 2], [0, 0]])
    wide = tf.reshape(wide, [batch, half + 1, 2, half + 1, 2 * channels])
    sums = []
    for row in range(3):
        for column in range(3):
            start = [0, row // 2, row % 2, column // 2, column % 2 * channels]
            tap = tf.reshape(tf.slice(wide, start, [batch, half, 1, half, channels]), gradient.shape)
            sums.append(tf.reduce_sum(tap * gradient, axis=[0, 1, 2]))
    return tf.reshape(tf.stack(sums), [3, 3, channels, 1])


def depthwise_filter_as_depthwise(image: Any, gradient: Any) -> Any:
    """The batch becomes channels, and the output's gradient the filter."""
    batch, side, _, channels = image.shape
    wide = tf.pad(image, [[0, 0], [1, 1], [1, 1], [0, 0]])
    stacked = tf.reshape(tf.transpose(wide, [1, 2, 0, 3]), [1, side + 2, side + 2, batch * channels])
    kernel = tf.reshape(tf.transpose(gradient, [1, 2, 0, 3]), [side, side, batch * channels, 1])
    product = tf.nn.depthwise_conv2d(stacked, kernel, [1, 1, 1, 1], "VALID")
    return tf.reshape(tf.reduce_sum(tf.reshape(product, [3, 3, batch, channels]), axis=2), [3, 3, channels, 1])


def depthwise_input(kernel: Any, gradient: Any) -> Any:
    return tf.raw_ops.DepthwiseConv2dNativeBackpropInput(
        input_sizes=gradient.shape, filter=kernel, out_backprop=gradient, strides=[1, 1, 1, 1], padding="SAME"
    )


def depthwise_input_as_depthwise(kernel: Any, gradient: Any) -> Any:
    """A depthwise convolution with the flipped filter."""
    flat = tf.reshape(kernel, [9, kernel.shape[2], 1])
    flipped = tf.reshape(tf.reverse(flat, [0]), kernel.shape)
    return tf.nn.depthwise_conv2d(gradient, flipped, [1, 1, 1, 1], "SAME")


def relu_grad(features: Any, gradient: Any) -> Any:
    return tf.raw_ops.ReluGrad(gradients=gradient, features=tf.nn.relu(features))


def relu6_grad(features: Any, gradient: Any) -> Any:
    return tf.raw_ops.Relu6Grad(gradients=gradient, features=tf.nn.relu6(features))


def relu6_grad_comparing(features: Any, gradient: Any) -> Any:
    output = tf.nn.relu6(features)
    return gradient * tf.cast(tf.logical_and(output > 0.0, output < 6.0), tf.float32)
