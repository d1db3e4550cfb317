"""Ways to compute the same thing, as TensorFlow functions: the naive one, the converter's own, and others.

What the converter chooses is not written down here: the op itself goes through its lowerings, so that the comparison
is always with what a file of today contains.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf

__all__ = ["CHOSEN", "GROUPS", "NAIVE", "Form", "Group"]

NAIVE = "naive"
CHOSEN = "chosen"


@dataclass(frozen=True)
class Form:
    """One way.

    Attributes:
        name: `NAIVE`, `CHOSEN`, or what it does.
        function: of the group's arrays.
        lowered: it goes through the converter's lowerings.
    """

    name: str
    function: Callable[..., Any]
    lowered: bool = False


@dataclass(frozen=True)
class Group:
    """Ways to compute the same thing.

    Attributes:
        title: what it is, and its size.
        shapes: of its float32 arguments.
        forms: the naive one first.
    """

    title: str
    shapes: tuple[tuple[int, ...], ...]
    forms: tuple[Form, ...]

    def arrays(self) -> list[Any]:
        """The arguments: random, and as many below 0 as above."""
        random = np.random.default_rng(0)
        return [random.normal(size=shape).astype(np.float32) for shape in self.shapes]


def _chosen(function: Callable[..., Any]) -> Form:
    return Form(CHOSEN, function, lowered=True)


def _conv(image: Any, kernel: Any, stride: int = 1) -> Any:
    return tf.raw_ops.Conv2D(input=image, filter=kernel, strides=[1, stride, stride, 1], padding="SAME")


def _conv_filter(size: int, channels: int) -> Callable[..., Any]:
    def gradient(image: Any, gradient: Any) -> Any:
        shape = [size, size, channels, gradient.shape[3]]
        return tf.raw_ops.Conv2DBackpropFilter(
            input=image, filter_sizes=shape, out_backprop=gradient, strides=[1, 1, 1, 1], padding="SAME"
        )

    return gradient


def _conv_filter_as_conv(size: int) -> Callable[..., Any]:
    """The batch takes the place of the channels, and the output's gradient that of the filter."""

    def gradient(image: Any, gradient: Any) -> Any:
        around = size // 2
        wide = tf.pad(tf.transpose(image, [3, 1, 2, 0]), [[0, 0], [around, around], [around, around], [0, 0]])
        product = tf.nn.conv2d(wide, tf.transpose(gradient, [1, 2, 0, 3]), 1, "VALID")
        return tf.transpose(product, [1, 2, 0, 3])

    return gradient


def _conv_input(kernel: Any, gradient: Any) -> Any:
    shape = [*gradient.shape[:3], kernel.shape[2]]
    return tf.raw_ops.Conv2DBackpropInput(
        input_sizes=shape, filter=kernel, out_backprop=gradient, strides=[1, 1, 1, 1], padding="SAME"
    )


def _rows_table(size: int, image: int) -> Any:
    at = np.arange(image)[:, None] + np.arange(size)
    wide = image + size - 1
    return (at[:, None, :, None] * wide + at[None, :, None, :]).reshape(image * image, size * size).astype(np.int32)


def _conv_slices(image: Any, kernel: Any) -> Any:
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
    product = _product(rows, tf.reshape(kernel, [size * size * channels, -1]))
    return tf.reshape(product, [batch, side, side, kernel.shape[3]])


def _conv_gather(transposed: bool) -> Callable[..., Any]:
    """Windows by one GATHER, then a product whose right side is transposed first or not."""

    def convolve(image: Any, kernel: Any) -> Any:
        size, batch, side, channels = kernel.shape[0], image.shape[0], image.shape[1], image.shape[3]
        around, taps = size // 2, size * size * image.shape[3]
        wide = tf.pad(image, [[0, 0], [around, around], [around, around], [0, 0]])
        flat = tf.reshape(wide, [batch, (side + 2 * around) ** 2, channels])
        rows = tf.reshape(tf.gather(flat, _rows_table(size, side), axis=1), [batch * side * side, taps])
        weights = tf.reshape(kernel, [taps, -1])
        return tf.reshape(
            (_right_first if transposed else _product)(rows, weights), [batch, side, side, kernel.shape[3]]
        )

    return convolve


def _matmul(left: bool = False, right: bool = False) -> Callable[..., Any]:
    return lambda x, y: tf.raw_ops.MatMul(a=x, b=y, transpose_a=left, transpose_b=right)


def _product(x: Any, y: Any, *, left: bool = False, right: bool = False) -> Any:
    """Rank 3, the sides transposed by the product itself."""
    product = tf.raw_ops.BatchMatMulV2(x=tf.expand_dims(x, 0), y=tf.expand_dims(y, 0), adj_x=left, adj_y=right)
    return tf.squeeze(product, 0)


def _rank_2(x: Any, y: Any, *, left: bool = False, right: bool = False) -> Any:
    """BATCH_MATMUL of the matrices as they are: no RESHAPE."""
    return tf.raw_ops.BatchMatMulV2(x=x, y=y, adj_x=left, adj_y=right)


def _rank_2_left(x: Any, y: Any) -> Any:
    return _rank_2(x, y, left=True)


def _rank_2_right(x: Any, y: Any) -> Any:
    return _rank_2(x, y, right=True)


def _right_first(x: Any, y: Any) -> Any:
    """The right side is transposed by an op of its own, and back by the product."""
    return _product(x, tf.transpose(y), right=True)


def _left_first(x: Any, y: Any) -> Any:
    """``x^T y``, transposed by an op of its own."""
    return _product(tf.transpose(x), y)


def _both_first(x: Any, y: Any) -> Any:
    """``x^T y``, both transposed by ops of their own, and the right one back by the product."""
    return _product(tf.transpose(x), tf.transpose(y), right=True)


def _exchanged(x: Any, y: Any) -> Any:
    """``x^T y`` as the transpose of ``y^T x``."""
    return tf.transpose(_product(y, x, left=True))


def _max_pool_grad(image: Any, gradient: Any) -> Any:
    output = tf.nn.max_pool2d(image, 2, 2, "VALID")
    return tf.raw_ops.MaxPoolGrad(
        orig_input=image, orig_output=output, grad=gradient, ksize=[1, 2, 2, 1], strides=[1, 2, 2, 1], padding="VALID"
    )


def _max_pool_grad_gather(image: Any, gradient: Any) -> Any:
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


def _max_pool_grad_resize(image: Any, gradient: Any) -> Any:
    """Every element sees its window's maximum and gradient by RESIZE_NEAREST_NEIGHBOR; ties all receive it."""
    side = image.shape[1]
    output = tf.nn.max_pool2d(image, 2, 2, "VALID")
    spread = [
        tf.compat.v1.image.resize_nearest_neighbor(each, [side, side], half_pixel_centers=True)
        for each in (output, gradient)
    ]
    return spread[1] * (1.0 - tf.minimum((spread[0] - image) * 3.4e38, 1.0))


def _max_pool_grad_broadcast(image: Any, gradient: Any) -> Any:
    """Windows as dimensions of their own, so that arithmetic repeats maximum and gradient; ties all receive it."""
    batch, side, _, channels = image.shape
    half = side // 2
    output = tf.reshape(tf.nn.max_pool2d(image, 2, 2, "VALID"), [batch * half, 1, half, 1, channels])
    left = output - tf.reshape(image, [batch * half, 2, half, 2, channels])
    passed = 1.0 - tf.minimum(left * 3.4e38, 1.0)
    return tf.reshape(passed * tf.reshape(gradient, [batch * half, 1, half, 1, channels]), image.shape)


def _depthwise(image: Any, kernel: Any) -> Any:
    return tf.nn.depthwise_conv2d(image, kernel, [1, 1, 1, 1], "SAME")


def _depthwise_taps(image: Any, kernel: Any) -> Any:
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


def _depthwise_filter(image: Any, gradient: Any) -> Any:
    return tf.raw_ops.DepthwiseConv2dNativeBackpropFilter(
        input=image,
        filter_sizes=[3, 3, image.shape[3], 1],
        out_backprop=gradient,
        strides=[1, 1, 1, 1],
        padding="SAME",
    )


def _depthwise_filter_as_depthwise(image: Any, gradient: Any) -> Any:
    """The batch becomes channels, and the output's gradient the filter."""
    batch, side, _, channels = image.shape
    wide = tf.pad(image, [[0, 0], [1, 1], [1, 1], [0, 0]])
    stacked = tf.reshape(tf.transpose(wide, [1, 2, 0, 3]), [1, side + 2, side + 2, batch * channels])
    kernel = tf.reshape(tf.transpose(gradient, [1, 2, 0, 3]), [side, side, batch * channels, 1])
    product = tf.nn.depthwise_conv2d(stacked, kernel, [1, 1, 1, 1], "VALID")
    return tf.reshape(tf.reduce_sum(tf.reshape(product, [3, 3, batch, channels]), axis=2), [3, 3, channels, 1])


def _depthwise_input(kernel: Any, gradient: Any) -> Any:
    return tf.raw_ops.DepthwiseConv2dNativeBackpropInput(
        input_sizes=gradient.shape, filter=kernel, out_backprop=gradient, strides=[1, 1, 1, 1], padding="SAME"
    )


def _depthwise_input_as_depthwise(kernel: Any, gradient: Any) -> Any:
    """A depthwise convolution with the flipped filter."""
    flat = tf.reshape(kernel, [9, kernel.shape[2], 1])
    flipped = tf.reshape(tf.reverse(flat, [0]), kernel.shape)
    return tf.nn.depthwise_conv2d(gradient, flipped, [1, 1, 1, 1], "SAME")


def _relu_grad(features: Any, gradient: Any) -> Any:
    return tf.raw_ops.ReluGrad(gradients=gradient, features=tf.nn.relu(features))


def _relu6_grad(features: Any, gradient: Any) -> Any:
    return tf.raw_ops.Relu6Grad(gradients=gradient, features=tf.nn.relu6(features))


def _relu6_grad_comparing(features: Any, gradient: Any) -> Any:
    output = tf.nn.relu6(features)
    return gradient * tf.cast(tf.logical_and(output > 0.0, output < 6.0), tf.float32)


def _relu6_grad_saturating(features: Any, gradient: Any) -> Any:
    """``y (6 - y)`` is above 0 where the gradient passes, and 0 elsewhere."""
    output = tf.nn.relu6(features)
    return gradient * tf.minimum(output * (6.0 - output) * 3.4e38, 1.0)


_MIDDLE, _KERNEL, _OUT = (10, 14, 14, 32), (5, 5, 32, 64), (10, 14, 14, 64)
_FIRST, _FIRST_KERNEL, _FIRST_OUT = (10, 28, 28, 1), (5, 5, 1, 32), (10, 28, 28, 32)
_MAPS, _TAPS = (8, 24, 24, 48), (3, 3, 48, 1)

GROUPS = {
    "conv": Group(
        "convolution 5×5, 14×14×32 → 64, batch 10",
        (_MIDDLE, _KERNEL),
        (
            Form(NAIVE, _conv),
            _chosen(_conv),
            Form("GATHER, right side as it is", _conv_gather(False)),
            Form("GATHER, right side transposed first", _conv_gather(True)),
            Form("slices and CONCATENATION", _conv_slices),
        ),
    ),
    "conv-filter": Group(
        "gradient of its filter, 5×5×32 → 64",
        (_MIDDLE, _OUT),
        (Form(NAIVE, _conv_filter_as_conv(5)), _chosen(_conv_filter(5, 32))),
    ),
    "conv-input": Group(
        "gradient of its input, 14×14×32", (_KERNEL, _OUT), (Form(NAIVE, _conv_input), _chosen(_conv_input))
    ),
    "first-conv": Group(
        "convolution 5×5, 28×28×1 → 32, batch 10",
        (_FIRST, _FIRST_KERNEL),
        (
            Form(NAIVE, _conv),
            _chosen(_conv),
            Form("GATHER, right side as it is", _conv_gather(False)),
            Form("slices and CONCATENATION", _conv_slices),
        ),
    ),
    "first-conv-filter": Group(
        "gradient of its filter, 5×5×1 → 32",
        (_FIRST, _FIRST_OUT),
        (Form(NAIVE, _conv_filter_as_conv(5)), _chosen(_conv_filter(5, 1))),
    ),
    "conv-1x1": Group(
        "convolution 1×1, 24×24×16 → 96, batch 8",
        ((8, 24, 24, 16), (1, 1, 16, 96)),
        (Form(NAIVE, _conv), _chosen(_conv)),
    ),
    "dense": Group(
        "Dense 784 → 200, batch 10",
        ((10, 784), (784, 200)),
        (
            Form(NAIVE, _matmul()),
            _chosen(_matmul()),
            Form("rank 2 BatchMatMulV2", _rank_2),
            Form("right side transposed first", _right_first),
        ),
    ),
    "dense-weight": Group(
        "gradient of its weight, 784 × 200",
        ((10, 784), (10, 200)),
        (
            Form(NAIVE, _matmul(left=True)),
            _chosen(_matmul(left=True)),
            Form("rank 2 BatchMatMulV2", _rank_2_left),
            Form("left side transposed first", _left_first),
            Form("both sides transposed first", _both_first),
            Form("operands exchanged, result transposed", _exchanged),
        ),
    ),
    "dense-input": Group(
        "gradient of its input, 10 × 784",
        ((10, 200), (784, 200)),
        (
            Form(NAIVE, _matmul(right=True)),
            _chosen(_matmul(right=True)),
            Form("rank 2 BatchMatMulV2", _rank_2_right),
            Form("right side transposed by an op", lambda x, y: _product(x, tf.transpose(y))),
        ),
    ),
    "tall": Group(
        "product [1960, 800] × [800, 64]",
        ((1960, 800), (800, 64)),
        (
            Form(NAIVE, _matmul()),
            _chosen(_matmul()),
            Form("rank 2 BatchMatMulV2", _rank_2),
            Form("right side as it is", _product),
            Form("right side transposed first", _right_first),
        ),
    ),
    "tall-left": Group(
        "product [1960, 800]ᵀ × [1960, 64]",
        ((1960, 800), (1960, 64)),
        (
            Form(NAIVE, _matmul(left=True)),
            _chosen(_matmul(left=True)),
            Form("rank 2 BatchMatMulV2", _rank_2_left),
            Form("left side transposed first", _left_first),
            Form("both sides transposed first", _both_first),
            Form("operands exchanged, result transposed", _exchanged),
        ),
    ),
    "max-pool": Group(
        "gradient of maximum pooling 2×2, 28×28×32, batch 10 (with the pooling)",
        ((10, 28, 28, 32), (10, 14, 14, 32)),
        (
            Form(NAIVE, _max_pool_grad_gather),
            _chosen(_max_pool_grad),
            Form("RESIZE_NEAREST_NEIGHBOR", _max_pool_grad_resize),
            Form("broadcast arithmetic", _max_pool_grad_broadcast),
        ),
    ),
    "depthwise": Group(
        "depthwise convolution 3×3, 24×24×48, batch 8",
        (_MAPS, _TAPS),
        (Form(NAIVE, _depthwise), _chosen(_depthwise), Form("taps", _depthwise_taps)),
    ),
    "depthwise-filter": Group(
        "gradient of its filter, 3×3×48",
        (_MAPS, _MAPS),
        (Form(NAIVE, _depthwise_filter_as_depthwise), _chosen(_depthwise_filter)),
    ),
    "depthwise-input": Group(
        "gradient of its input, 24×24×48",
        (_TAPS, _MAPS),
        (Form(NAIVE, _depthwise_input_as_depthwise), _chosen(_depthwise_input)),
    ),
    "relu": Group(
        "gradient of ReLU, 125,440 values (with the ReLU)",
        ((10, 14, 14, 64), (10, 14, 14, 64)),
        (
            Form(NAIVE, lambda x, g: tf.where(tf.nn.relu(x) > 0.0, g, tf.zeros_like(g))),
            _chosen(_relu_grad),
            Form("times cast(x > 0)", lambda x, g: g * tf.cast(tf.nn.relu(x) > 0.0, tf.float32)),
        ),
    ),
    "relu6": Group(
        "gradient of ReLU6, 221,184 values (with the ReLU6)",
        (_MAPS, _MAPS),
        (
            Form(NAIVE, _relu6_grad_comparing),
            _chosen(_relu6_grad),
            Form("min(y (6 - y) huge, 1)", _relu6_grad_saturating),
        ),
    ),
}
"""What the lowerings decide, by name; shapes are those of the FedAvg CNN, the 2NN and MobileNetV2."""
