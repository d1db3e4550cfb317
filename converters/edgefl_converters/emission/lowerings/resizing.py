"""Resizing images, and its gradient, as two products with matrices that TensorFlow's own kernels fill.

Every kind of resizing is linear and works along one axis after the other. What a kernel does to the unit images of one
axis is its matrix there; the gradient is the product with the transposed one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from edgefl_converters.emission.registry import Context, lowering
from edgefl_converters.emission.traced_ops import attribute, constant, static_shape

Matrix = NDArray[np.float32]
Resize = Callable[[tf.Tensor, Sequence[int]], tf.Tensor]


@lowering("ResizeBicubic")
def bicubic(op: Any, inputs: Sequence[tf.Tensor], context: Context) -> Sequence[tf.Tensor]:
    """Cubic in both directions."""
    size = [int(each) for each in constant(op, 1)]
    return [_apply(inputs[0], *_matrices(_kernel(op, tf.raw_ops.ResizeBicubic), static_shape(inputs[0])[1:3], size))]


@lowering("ResizeArea")
def area(op: Any, inputs: Sequence[tf.Tensor], context: Context) -> Sequence[tf.Tensor]:
    """The mean of what a new pixel covers."""
    size = [int(each) for each in constant(op, 1)]
    settings = {"align_corners": op.get_attr("align_corners")}

    def resize(images: tf.Tensor, size: Sequence[int]) -> tf.Tensor:
        return tf.raw_ops.ResizeArea(images=images, size=list(size), **settings)

    return [_apply(inputs[0], *_matrices(resize, static_shape(inputs[0])[1:3], size))]


@lowering("CropAndResize")
def crop_and_resize(op: Any, inputs: Sequence[tf.Tensor], context: Context) -> Sequence[tf.Tensor]:
    """Products with two matrices for each box, which may depend on the data."""
    images, boxes, places = inputs[:3]
    _, height, width, channels = static_shape(images)
    size = [int(each) for each in constant(op, 3)]
    count = static_shape(boxes)[0]
    down, across = (_crops(boxes, axis, length, size[axis]) for axis, length in enumerate((height, width)))
    rows = tf.matmul(down, tf.reshape(tf.gather(images, places), [count, height, width * channels]))
    columns = tf.transpose(tf.reshape(rows, [count, size[0], width, channels]), [0, 2, 1, 3])
    columns = tf.matmul(across, tf.reshape(columns, [count, width, size[0] * channels]))
    found = tf.transpose(tf.reshape(columns, [count, size[1], size[0], channels]), [0, 2, 1, 3])
    outside = float(op.get_attr("extrapolation_value"))
    if outside:
        inside = [tf.reduce_sum(each, axis=2) for each in (down, across)]
        found = found + outside * (1.0 - inside[0][:, :, None, None] * inside[1][:, None, :, None])
    return [found]


@lowering("CropAndResizeGradImage")
def crop_and_resize_gradient(op: Any, inputs: Sequence[tf.Tensor], context: Context) -> Sequence[tf.Tensor]:
    """The same matrices, transposed; what several boxes give to one image is added up."""
    gradient, boxes, places = inputs[:3]
    shape = [int(each) for each in constant(op, 3)]
    count, rows, columns, channels = static_shape(gradient)
    down, across = (_crops(boxes, axis, shape[1 + axis], size) for axis, size in enumerate((rows, columns)))
    back = tf.transpose(gradient, [0, 2, 1, 3])
    back = tf.matmul(tf.transpose(across, [0, 2, 1]), tf.reshape(back, [count, columns, rows * channels]))
    back = tf.transpose(tf.reshape(back, [count, shape[2], rows, channels]), [0, 2, 1, 3])
    back = tf.matmul(tf.transpose(down, [0, 2, 1]), tf.reshape(back, [count, rows, shape[2] * channels]))
    flat = tf.scatter_nd(places[:, None], tf.reshape(back, [count, -1]), [shape[0], int(np.prod(shape[1:]))])
    return [tf.reshape(flat, shape)]


def _crops(boxes: tf.Tensor, axis: int, length: int, size: int) -> tf.Tensor:
    """One matrix for each box, ``[boxes, size, length]``: linear between pixels, and nothing outside."""
    first, last = boxes[:, axis : axis + 1] * (length - 1), boxes[:, axis + 2 : axis + 3] * (length - 1)
    steps = np.arange(size, dtype=np.float32)[None] / max(size - 1, 1)
    seen = first + (last - first) * steps if size > 1 else (first + last) * 0.5
    inside = tf.cast(seen >= 0.0, tf.float32) * tf.cast(seen <= length - 1.0, tf.float32)
    near = tf.maximum(1.0 - tf.abs(seen[:, :, None] - np.arange(length, dtype=np.float32)), 0.0)
    return near * inside[:, :, None]


@lowering("ResizeBilinearGrad")
def bilinear_gradient(op: Any, inputs: Sequence[tf.Tensor], context: Context) -> Sequence[tf.Tensor]:
    """Linear in both directions."""
    return [_gradient(op, inputs[0], tf.raw_ops.ResizeBilinear, static_shape(inputs[1])[1:3])]


@lowering("ResizeBicubicGrad")
def bicubic_gradient(op: Any, inputs: Sequence[tf.Tensor], context: Context) -> Sequence[tf.Tensor]:
    """Cubic in both directions."""
    return [_gradient(op, inputs[0], tf.raw_ops.ResizeBicubic, static_shape(inputs[1])[1:3])]


@lowering("ResizeNearestNeighborGrad")
def nearest_gradient(op: Any, inputs: Sequence[tf.Tensor], context: Context) -> Sequence[tf.Tensor]:
    """Each pixel gets the gradients of those that repeat it."""
    size = [int(each) for each in constant(op, 1)]
    return [_gradient(op, inputs[0], tf.raw_ops.ResizeNearestNeighbor, size)]


@lowering("ScaleAndTranslate")
def scale_and_translate(op: Any, inputs: Sequence[tf.Tensor], context: Context) -> Sequence[tf.Tensor]:
    """With a kernel that may be wider than a pixel (antialiasing, Lanczos)."""
    size = [int(each) for each in constant(op, 1)]
    return [_apply(inputs[0], *_scaling(op, (2, 3), static_shape(inputs[0])[1:3], size))]


@lowering("ScaleAndTranslateGrad")
def scale_and_translate_gradient(op: Any, inputs: Sequence[tf.Tensor], context: Context) -> Sequence[tf.Tensor]:
    """The same matrices, transposed."""
    gradient = inputs[0]
    down, across = _scaling(op, (2, 3), static_shape(inputs[1])[1:3], static_shape(gradient)[1:3])
    return [_apply(gradient, down.T, across.T)]


def _kernel(op: Any, raw: Callable[..., tf.Tensor]) -> Resize:
    settings = {name: op.get_attr(name) for name in ("align_corners", "half_pixel_centers")}
    return lambda images, size: raw(images=images, size=list(size), **settings)


def _gradient(op: Any, gradient: tf.Tensor, raw: Callable[..., tf.Tensor], image: Sequence[int]) -> tf.Tensor:
    down, across = _matrices(_kernel(op, raw), image, static_shape(gradient)[1:3])
    return _apply(gradient, down.T, across.T)


def _matrices(resize: Resize, image: Sequence[int], size: Sequence[int]) -> tuple[Matrix, Matrix]:
    """One matrix ``[new, old]`` for each direction."""
    with tf.init_scope():
        down = resize(np.eye(image[0], dtype=np.float32)[:, :, None, None], (size[0], 1))
        across = resize(np.eye(image[1], dtype=np.float32)[:, None, :, None], (1, size[1]))
        return np.asarray(down)[:, :, 0, 0].T, np.asarray(across)[:, 0, :, 0].T


def _scaling(op: Any, where: tuple[int, int], image: Sequence[int], size: Sequence[int]) -> tuple[Matrix, Matrix]:
    scale, translation = (np.asarray(constant(op, index), np.float32) for index in where)
    settings = {"kernel_type": attribute(op, "kernel_type"), "antialias": op.get_attr("antialias")}

    def along(axis: int) -> Matrix:
        shape = [image[axis], 1, 1, 1]
        shape[1 + axis] = image[axis]
        unit = np.eye(image[axis], dtype=np.float32).reshape(shape)
        own_scale, own_translation, own_size = np.ones(2, np.float32), np.zeros(2, np.float32), np.ones(2, np.int32)
        own_scale[axis], own_translation[axis], own_size[axis] = scale[axis], translation[axis], size[axis]
        with tf.init_scope():
            resized = tf.raw_ops.ScaleAndTranslate(
                images=unit, size=own_size, scale=own_scale, translation=own_translation, **settings
            )
            return np.asarray(resized).reshape(image[axis], size[axis]).T

    return along(0), along(1)


def _apply(images: tf.Tensor, down: Matrix, across: Matrix) -> tf.Tensor:
    """Products along both directions of ``[B, H, W, C]`` with ``[H', H]`` and ``[W', W]``."""
    batch, height, width, channels = static_shape(images)
    rows = tf.transpose(tf.reshape(images, [batch, height, width * channels]), [1, 0, 2])
    rows = tf.matmul(down[None], tf.reshape(rows, [1, height, batch * width * channels]))
    columns = tf.transpose(tf.reshape(rows, [len(down) * batch, width, channels]), [1, 0, 2])
    columns = tf.matmul(across[None], tf.reshape(columns, [1, width, len(down) * batch * channels]))
    return tf.transpose(tf.reshape(columns, [len(across), len(down), batch, channels]), [2, 1, 0, 3])
