"""Convolutions and pooling in three dimensions, as those of two over frames that are stacked or combined in depth.

A convolution sees the frames of one window in depth as further channels of an image. Pooling is done over height and
width first, then over depth: averages and maxima can be taken one axis after the other.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from edgefl_converters.emission.lowerings.convolution import convolve, filter_gradient, input_gradient
from edgefl_converters.emission.lowerings.windows import Window, axis_positions
from edgefl_converters.emission.registry import Context, lowering
from edgefl_converters.emission.traced_ops import attribute, constant, static_shape

_LOWEST = float(np.finfo(np.float32).min)


@dataclass(frozen=True)
class Volume:
    """A window that slides through ``[B, D, H, W, C]``.

    Attributes:
        depth: frames of the volume.
        frames: which frame each tap of each window in depth sees, ``[positions, taps]``; may lie outside.
        window: over height and width.
    """

    depth: int
    frames: NDArray[np.int32]
    window: Window

    @classmethod
    def of(cls, op: Any, shape: Sequence[int], kernel: Sequence[int]) -> Volume:
        """Reads the attributes of an op (``NDHWC``) on a volume of a shape."""
        if attribute(op, "data_format") != "NDHWC":
            raise ValueError("data_format must be 'channels_last'")
        strides = [int(each) for each in op.get_attr("strides")[1:4]]
        dilated = "dilations" in op.node_def.attr
        dilations = [int(each) for each in op.get_attr("dilations")[1:4]] if dilated else [1, 1, 1]
        padding = attribute(op, "padding")
        before, positions = zip(
            *(
                axis_positions(padding, shape[1 + axis], kernel[axis], strides[axis], dilations[axis])
                for axis in range(3)
            )
        )
        frames = np.arange(positions[0])[:, None] * strides[0] + np.arange(kernel[0]) * dilations[0] - before[0]
        window = Window(
            (shape[2], shape[3]),
            (kernel[1], kernel[2]),
            (strides[1], strides[2]),
            (dilations[1], dilations[2]),
            (before[1], before[2]),
            (positions[1], positions[2]),
        )
        return cls(shape[1], frames.astype(np.int32), window)

    @property
    def inside(self) -> NDArray[np.bool_]:
        """Tells which taps in depth lie inside the volume."""
        found: NDArray[np.bool_] = (self.frames >= 0) & (self.frames < self.depth)
        return found

    def gather(self, volume: tf.Tensor, outside: float = 0.0) -> tf.Tensor:
        """``[B, D, ...]`` to ``[B, positions, taps, ...]``."""
        around = [[0, 0]] * (len(volume.shape) - 2)
        indices = np.where(self.inside, self.frames, self.depth).astype(np.int32)
        if not self.inside.all():
            volume = tf.pad(volume, [[0, 0], [0, 1], *around], constant_values=outside)
        return tf.gather(volume, indices, axis=1)

    def sum_back(self, taps: Sequence[tf.Tensor]) -> tf.Tensor:
        """Adds up what each tap gives to the frames that it sees: ``[B, positions, ...]`` to ``[B, D, ...]``."""
        positions = self.frames.shape[0]
        around = [[0, 0]] * (len(taps[0].shape) - 2)
        total = None
        for tap, given in enumerate(taps):
            sources = np.full(self.depth, positions, np.int32)
            for position in np.flatnonzero(self.inside[:, tap]):
                sources[self.frames[position, tap]] = position
            received = tf.gather(tf.pad(given, [[0, 0], [0, 1], *around]), sources, axis=1)
            total = received if total is None else total + received
        return total


@lowering("Conv3D")
def conv3d(op: Any, inputs: Sequence[tf.Tensor], context: Context) -> Sequence[tf.Tensor]:
    """A two-dimensional convolution of stacked frames, group by group."""
    image, kernel = inputs
    volume = Volume.of(op, static_shape(image), static_shape(kernel))
    batch, filters = static_shape(image)[0], static_shape(kernel)[4]
    outputs = [
        convolve(_stacked(part, volume, context), _flat_kernel(weights), volume.window, context)
        for part, weights in _by_group(image, kernel, static_shape(kernel)[3])
    ]
    return [tf.reshape(_join(outputs), [batch, len(volume.frames), *volume.window.positions, filters])]


@lowering("Conv3DBackpropFilterV2")
def conv3d_backprop_filter(op: Any, inputs: Sequence[tf.Tensor], context: Context) -> Sequence[tf.Tensor]:
    """The gradient of the two-dimensional filter, in the filter's own order."""
    image, gradient = inputs[0], inputs[2]
    taps, rows, columns, depth, filters = (int(size) for size in constant(op, 1))
    volume = Volume.of(op, static_shape(image), (taps, rows, columns))
    groups = static_shape(image)[4] // depth
    batch = static_shape(image)[0] * len(volume.frames)
    parts = []
    for part, own in _by_group(image, gradient, depth):
        flat = tf.reshape(own, [batch, *volume.window.positions, filters // groups])
        shape = [rows, columns, taps * depth, filters // groups]
        found = filter_gradient(_stacked(part, volume, context), flat, shape, volume.window, context)
        found = tf.reshape(found, [rows * columns, taps, depth, filters // groups])
        parts.append(tf.reshape(_first_two_exchanged(found), [taps, rows, columns, depth, filters // groups]))
    return [_join(parts)]


@lowering("Conv3DBackpropInputV2")
def conv3d_backprop_input(op: Any, inputs: Sequence[tf.Tensor], context: Context) -> Sequence[tf.Tensor]:
    """The gradient of the stacked frames, added up frame by frame; also a transposed convolution."""
    kernel, gradient = inputs[1], inputs[2]
    shape = [int(size) for size in constant(op, 0)]
    taps, _, _, depth, filters = static_shape(kernel)
    volume = Volume.of(op, shape, static_shape(kernel))
    groups = shape[4] // depth
    batch, positions = shape[0], len(volume.frames)
    parts = []
    for own, weights in _by_group(gradient, kernel, filters // groups, groups):
        flat = tf.reshape(own, [batch * positions, *volume.window.positions, filters // groups])
        stacked = [batch * positions, shape[2], shape[3], taps * depth]
        found = input_gradient(_flat_kernel(weights), flat, stacked, volume.window, context)
        split = tf.split(tf.reshape(found, [batch, positions, shape[2] * shape[3], taps * depth]), taps, axis=3)
        parts.append(tf.reshape(volume.sum_back(split), [*shape[:4], depth]))
    return [_join(parts)]


@lowering("AvgPool3D")
def average_pool(op: Any, inputs: Sequence[tf.Tensor], context: Context) -> Sequence[tf.Tensor]:
    """The average of averages: of what lies inside the image, then of the frames that lie inside the volume."""
    (image,) = inputs
    volume = _pooled(op, static_shape(image))
    frames = _image_pool(tf.nn.avg_pool2d, op, image, volume)
    return [tf.reduce_sum(volume.gather(frames), axis=2) * _share(volume)]


@lowering("AvgPool3DGrad")
def average_pool_gradient(op: Any, inputs: Sequence[tf.Tensor], context: Context) -> Sequence[tf.Tensor]:
    """Every element inside a window gets the same share of its gradient."""
    shape = [int(size) for size in constant(op, 0)]
    volume = _pooled(op, shape)
    share = inputs[1] * _share(volume)
    frames = volume.sum_back([share] * volume.frames.shape[1])
    window = volume.window
    inside = _inside(window, 0)[:, None] * _inside(window, 1)[None, :]
    frames = frames * (1.0 / inside).astype(np.float32)[:, :, None]
    ones = tf.ones([*window.kernel, 1, 1])
    flat = tf.reshape(frames, [shape[0] * shape[1], *window.positions, shape[4]])
    return [tf.reshape(_each_channel(flat, ones, shape, window, context), shape)]


@lowering("MaxPool3D")
def max_pool(op: Any, inputs: Sequence[tf.Tensor], context: Context) -> Sequence[tf.Tensor]:
    """The maximum over frames of the maxima of images."""
    (image,) = inputs
    volume = _pooled(op, static_shape(image))
    frames = _image_pool(tf.nn.max_pool2d, op, image, volume)
    return [tf.reduce_max(volume.gather(frames, _LOWEST), axis=2)]


@lowering("MaxPool3DGrad")
def max_pool_gradient(op: Any, inputs: Sequence[tf.Tensor], context: Context) -> Sequence[tf.Tensor]:
    """Every element that equals the maximum of a window gets its whole gradient, as TensorFlow does in 3-D."""
    image, output, gradient = inputs
    shape = static_shape(image)
    volume = _pooled(op, shape)
    window, (batch, _, height, width, channels) = volume.window, shape
    positions = len(volume.frames)
    rows = [window.axis_indices(axis) - window.before[axis] for axis in (0, 1)]
    table = _table(rows, (height, width))
    flat = tf.reshape(image, [batch, shape[1], height * width, channels])
    flat = tf.pad(flat, [[0, 0], [0, 0], [0, 1], [0, 0]], constant_values=_LOWEST)
    seen = tf.gather(flat, table, axis=2)  # [batch, depth, windows, taps, channels]
    around = volume.gather(seen, _LOWEST)  # [batch, positions, frames, windows, taps, channels]
    best = tf.reshape(output, [batch, positions, 1, window.count, 1, channels])
    given = tf.reshape(gradient, [batch, positions, 1, window.count, 1, channels])
    received = tf.cast(tf.equal(around, best), tf.float32) * given
    frames = volume.sum_back(tf.unstack(received, axis=2))  # [batch, depth, windows, taps, channels]
    entries = tf.reshape(frames, [batch, shape[1], window.count * window.taps, channels])
    entries = tf.pad(entries, [[0, 0], [0, 0], [0, 1], [0, 0]])
    summed = tf.reduce_sum(tf.gather(entries, _reaching(table, height * width), axis=2), axis=3)
    return [tf.reshape(summed, shape)]


def _pooled(op: Any, shape: Sequence[int]) -> Volume:
    return Volume.of(op, shape, [int(size) for size in op.get_attr("ksize")[1:4]])


def _image_pool(pool: Callable[..., tf.Tensor], op: Any, image: tf.Tensor, volume: Volume) -> tf.Tensor:
    """Pools each frame over height and width."""
    batch, depth, height, width, channels = static_shape(image)
    flat = tf.reshape(image, [batch * depth, height, width, channels])
    pooled = pool(flat, volume.window.kernel, volume.window.strides, attribute(op, "padding"))
    return tf.reshape(pooled, [batch, depth, *volume.window.positions, channels])


def _share(volume: Volume) -> NDArray[np.float32]:
    """One over the number of frames inside, for each window in depth."""
    share: NDArray[np.float32] = (1.0 / volume.inside.sum(axis=1)).astype(np.float32)[:, None, None, None]
    return share


def _inside(window: Window, axis: int) -> NDArray[np.float32]:
    indices = window.axis_indices(axis) - window.before[axis]
    count: NDArray[np.float32] = ((indices >= 0) & (indices < window.image[axis])).sum(axis=1).astype(np.float32)
    return count


def _each_channel(
    gradient: tf.Tensor, ones: tf.Tensor, shape: Sequence[int], window: Window, context: Context
) -> tf.Tensor:
    """The gradient of a sum over windows, for each channel on its own."""
    frames, channels = shape[0] * shape[1], shape[4]
    alone = tf.reshape(tf.transpose(gradient, [0, 3, 1, 2]), [frames * channels, *window.positions, 1])
    found = input_gradient(ones, alone, [frames * channels, shape[2], shape[3], 1], window, context)
    return tf.transpose(tf.reshape(found, [frames, channels, shape[2], shape[3]]), [0, 2, 3, 1])


def _table(rows: Sequence[NDArray[np.int32]], size: tuple[int, int]) -> NDArray[np.int32]:
    """The pixel that each tap of each window sees; one past the last where it lies outside."""
    down, across = rows[0][:, None, :, None], rows[1][None, :, None, :]
    inside = (down >= 0) & (down < size[0]) & (across >= 0) & (across < size[1])
    table = np.where(inside, down * size[1] + across, size[0] * size[1])
    flat: NDArray[np.int32] = table.reshape(rows[0].shape[0] * rows[1].shape[0], -1).astype(np.int32)
    return flat


def _reaching(table: NDArray[np.int32], pixels: int) -> NDArray[np.int32]:
    """Returns for each pixel the entries of a table that see it, filled up with one past the last."""
    entries: list[list[int]] = [[] for _ in range(pixels)]
    for entry, pixel in enumerate(table.ravel()):
        if pixel < pixels:
            entries[pixel].append(entry)
    most = max(1, max(map(len, entries)))
    return np.asarray([each + [table.size] * (most - len(each)) for each in entries], np.int32)


def _stacked(image: tf.Tensor, volume: Volume, context: Context) -> tf.Tensor:
    """The frames of each window in depth as channels of one image: ``[B * positions, H, W, taps * C]``."""

    def make() -> tf.Tensor:
        batch, _, height, width, channels = static_shape(image)
        positions, taps = volume.frames.shape
        seen = tf.reshape(volume.gather(image), [batch * positions, taps, height * width, channels])
        seen = tf.transpose(seen, [0, 2, 1, 3])
        return tf.reshape(seen, [batch * positions, height, width, taps * channels])

    return context.shared(("frames", image.name, volume.frames.tobytes(), volume.frames.shape), make)


def _flat_kernel(kernel: tf.Tensor) -> tf.Tensor:
    taps, rows, columns, depth, filters = static_shape(kernel)
    moved = _first_two_exchanged(tf.reshape(kernel, [taps, rows * columns, depth, filters]))
    return tf.reshape(moved, [rows, columns, taps * depth, filters])


def _first_two_exchanged(tensor: tf.Tensor) -> tf.Tensor:
    """``[a, b, c, d]`` to ``[b, a, c, d]``.

    Without a TRANSPOSE where that moves nothing: between such a one and that of a square matrix the converter of
    TensorFlow 2.21 loses the latter, and says nothing.
    """
    first, second, *rest = static_shape(tensor)
    if 1 in (first, second):
        return tf.reshape(tensor, [second, first, *rest])
    return tf.transpose(tensor, [1, 0, 2, 3])


def _by_group(
    first: tf.Tensor, second: tf.Tensor, size: int, groups: int | None = None
) -> list[tuple[tf.Tensor, tf.Tensor]]:
    """Splits the channels of two tensors into groups; each group of the first has ``size`` channels."""
    count = groups or static_shape(first)[-1] // size
    if count == 1:
        return [(first, second)]
    return list(zip(tf.split(first, count, axis=-1), tf.split(second, count, axis=-1)))


def _join(parts: Sequence[tf.Tensor]) -> tf.Tensor:
    return parts[0] if len(parts) == 1 else tf.concat(parts, axis=-1)
