"""Sliding windows over images as index tables: what convolutions and pooling, and their gradients, have in common."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from edgefl_converters.emission.registry import Context
from edgefl_converters.emission.traced_ops import attribute, folded, static_shape

__all__ = [
    "Phase",
    "Window",
    "axis_positions",
    "gather_rows",
    "interleave",
    "pad_gradient",
    "pad_image",
    "pad_once",
    "part",
    "patches",
    "phases",
    "shifted",
    "through_phases",
]


@dataclass(frozen=True)
class Window:
    """A window that slides over an image; every pair is (height, width).

    Attributes:
        image: size of the image.
        kernel: size of the window.
        strides: steps between windows.
        dilations: steps between the taps of a window.
        before: rows and columns of padding before the image.
    """

    image: tuple[int, int]
    kernel: tuple[int, int]
    strides: tuple[int, int]
    dilations: tuple[int, int]
    before: tuple[int, int]
    positions: tuple[int, int]

    @classmethod
    def of(cls, op: Any, image: Sequence[int], kernel: Sequence[int]) -> Window:
        """Reads the attributes of a convolution or pooling op (``NHWC``)."""
        if attribute(op, "data_format") != "NHWC":
            raise ValueError("data_format must be 'channels_last'")
        strides = _pair(op.get_attr("strides")[1:3])
        dilations = _pair(op.get_attr("dilations")[1:3] if "dilations" in op.node_def.attr else [1, 1])
        padding = attribute(op, "padding")
        explicit = op.get_attr("explicit_paddings") if padding == "EXPLICIT" else [0] * 8
        before, positions = [], []
        for axis in (0, 1):
            around = explicit[2 + 2 * axis : 4 + 2 * axis]
            first, count = axis_positions(padding, image[axis], kernel[axis], strides[axis], dilations[axis], around)
            before.append(first)
            positions.append(count)
        return cls(_pair(image), _pair(kernel), strides, dilations, _pair(before), _pair(positions))

    @property
    def taps(self) -> int:
        """Elements of one window."""
        return self.kernel[0] * self.kernel[1]

    @property
    def count(self) -> int:
        """Windows in one image."""
        return self.positions[0] * self.positions[1]

    @property
    def after(self) -> tuple[int, int]:
        """Rows and columns of padding after the image that the windows reach; 0 where they end inside it."""
        return _pair(
            [
                max(0, (count - 1) * stride + (size - 1) * dilation + 1 - first - length)
                for count, stride, size, dilation, first, length in zip(
                    self.positions, self.strides, self.kernel, self.dilations, self.before, self.image
                )
            ]
        )

    @property
    def padded(self) -> tuple[int, int]:
        """Size of the padded image."""
        return _pair([size + one + two for size, one, two in zip(self.image, self.before, self.after)])

    def axis_indices(self, axis: int) -> NDArray[np.int32]:
        """Tells where each tap of each window lies on one axis of the padded image; shape ``[positions, kernel]``."""
        first = np.arange(self.positions[axis]) * self.strides[axis]
        return (first[:, None] + np.arange(self.kernel[axis]) * self.dilations[axis]).astype(np.int32)


def axis_positions(
    padding: str, length: int, kernel: int, stride: int, dilation: int, explicit: Sequence[int] = (0, 0)
) -> tuple[int, int]:
    """Padding before an axis, and how many windows there are along it, for TensorFlow's kinds of padding."""
    extent = (kernel - 1) * dilation + 1
    if padding == "SAME":
        count = -(-length // stride)
        return max(0, (count - 1) * stride + extent - length) // 2, count
    first, last = explicit if padding == "EXPLICIT" else (0, 0)
    return int(first), (length + int(first) + int(last) - extent) // stride + 1


def pad_image(image: tf.Tensor, window: Window, value: float = 0.0) -> tf.Tensor:
    """Pads ``[B, H, W, C]`` as the window needs it."""
    (top, left), (bottom, right) = window.before, window.after
    if top == left == bottom == right == 0:
        return image
    return tf.pad(image, [[0, 0], [top, bottom], [left, right], [0, 0]], constant_values=value)


def pad_once(image: tf.Tensor, amounts: Sequence[Sequence[int]]) -> tf.Tensor:
    """Pads with zeros; what was padded with zeros before is padded with all of them at once."""
    inner = image.op
    before = folded(inner.inputs[1]) if inner.type == "Pad" else None
    return tf.pad(image, amounts) if before is None else tf.pad(inner.inputs[0], before + np.asarray(amounts))


def gather_rows(image: tf.Tensor, rows: NDArray[np.int32], columns: NDArray[np.int32]) -> tf.Tensor:
    """Gathers channels at index pairs.

    Args:
        image: ``[B, H, W, C]``.
        rows: row indices ``[N, T]``: N positions with T taps each.
        columns: column indices ``[M, U]``.

    Returns:
        ``[B, N * M, T * U, C]``: tap ``t * U + u`` of position ``n * M + m`` is at ``rows[n, t], columns[m, u]``.
    """
    batch, height, width, channels = static_shape(image)
    table = rows[:, None, :, None] * width + columns[None, :, None, :]
    table = table.reshape(rows.shape[0] * columns.shape[0], -1).astype(np.int32)
    return tf.gather(tf.reshape(image, [batch, height * width, channels]), table, axis=1)


def part(tensor: tf.Tensor, bounds: Mapping[int, tuple[int, int]]) -> tf.Tensor:
    """A part of a tensor: for some axes where it begins and how long it is."""
    shape = static_shape(tensor)
    all_bounds = [bounds.get(axis, (0, size)) for axis, size in enumerate(shape)]
    if all(each == (0, size) for each, size in zip(all_bounds, shape)):
        return tensor
    return tf.slice(tensor, [begin for begin, _ in all_bounds], [size for _, size in all_bounds])


def shifted(tensor: tf.Tensor, axis: int, offsets: Sequence[int], length: int) -> list[tf.Tensor]:
    """Copies of a tensor that begin at other places of an axis, with zeros around it.

    Args:
        tensor: of any rank.
        axis: along which it is shifted.
        offsets: for each copy, which place of the tensor comes first; may lie outside.
        length: of the copies along the axis.
    """
    shape = static_shape(tensor)
    before = max(0, -min(offsets))
    after = max(0, max(offsets) + length - shape[axis])
    if before or after:
        tensor = tf.pad(tensor, [[before, after] if each == axis else [0, 0] for each in range(len(shape))])
    return [part(tensor, {axis: (offset + before, length)}) for offset in offsets]


def patches(image: tf.Tensor, window: Window, context: Context) -> tf.Tensor:
    """Every window as a row (im2col), shared by all ops that look at the same image through the same window.

    Args:
        image: ``[B, H, W, C]``.
        window: how to look at it.
        context: of the lowering.

    Returns:
        ``[B * positions, taps * C]``.
    """
    return context.shared(("patches", image.name, window), lambda: _patches(image, window))


def _patches(image: tf.Tensor, window: Window) -> tf.Tensor:
    batch, _, _, channels = static_shape(image)
    shape = [batch * window.count, window.taps * channels]
    if window.taps == 1 and window.strides == (1, 1):
        return tf.reshape(image, shape)
    padded = pad_image(image, window)
    rows, columns = window.axis_indices(0), window.axis_indices(1)
    return tf.reshape(gather_rows(padded, rows, columns), shape)


@dataclass(frozen=True)
class Phase:
    """The image positions ``offset + stride * q`` of both axes, and the taps through which windows reach them.

    Attributes:
        taps: kernel indices (row, column) per axis.
        windows: for each axis the window at tap t of position q, shape ``[positions, taps]``; may lie outside.
    """

    taps: tuple[tuple[int, ...], tuple[int, ...]]
    windows: tuple[NDArray[np.int32], NDArray[np.int32]]


def phases(window: Window) -> tuple[list[Phase], tuple[int, int]]:
    """Splits an image by position modulo stride: inside a phase all positions are reached through the same taps.

    Returns:
        The phases, row offset first, and the number of positions of each axis, the same for all.
    """
    lengths = _pair([-(-size // stride) for size, stride in zip(window.image, window.strides)])
    by_axis = [
        [_axis_phase(window, axis, offset, lengths[axis]) for offset in range(window.strides[axis])] for axis in (0, 1)
    ]
    result = [
        Phase((first[0], second[0]), (first[1], second[1]))
        for first, second in itertools.product(by_axis[0], by_axis[1])
    ]
    return result, lengths


def _axis_phase(window: Window, axis: int, offset: int, length: int) -> tuple[tuple[int, ...], NDArray[np.int32]]:
    stride, dilation = window.strides[axis], window.dilations[axis]
    reach = [(tap, offset + window.before[axis] - tap * dilation) for tap in range(window.kernel[axis])]
    reaching = [(tap, distance // stride) for tap, distance in reach if distance % stride == 0]
    first = np.asarray([start for _, start in reaching], np.int32)
    return tuple(tap for tap, _ in reaching), np.arange(length, dtype=np.int32)[:, None] + first[None, :]


def _margin(split: Sequence[Phase], axis: int, positions: int) -> tuple[int, int]:
    """Tells how far phases reach beyond the first and the last window: the zeros that a gradient needs around it."""
    asked = [phase.windows[axis] for phase in split if phase.windows[axis].size]
    lowest = min((int(indices.min()) for indices in asked), default=0)
    highest = max((int(indices.max()) for indices in asked), default=0)
    return max(0, -lowest), max(0, highest - positions + 1)


def pad_gradient(gradient: tf.Tensor, window: Window) -> tuple[tf.Tensor, list[tuple[int, int]]]:
    """A gradient of windows with the zeros that phases reach around it, and how many there are before and after.

    Args:
        gradient: ``[B, *positions, F]``.
        window: of its windows.
    """
    split, _ = phases(window)
    margins = [_margin(split, axis, window.positions[axis]) for axis in (0, 1)]
    if margins == [(0, 0), (0, 0)]:
        return gradient, margins
    return tf.pad(gradient, [[0, 0], *map(list, margins), [0, 0]]), margins


def through_phases(
    gradient: tf.Tensor,
    shape: Sequence[int],
    window: Window,
    convolve: Callable[[tf.Tensor, list[int], list[int]], tf.Tensor],
) -> tf.Tensor:
    """The gradient of an image through windows without dilation, one small convolution for each phase of the stride.

    Args:
        gradient: of the windows, ``[B, *positions, F]``.
        shape: of the image, ``[B, H, W, C]``.
        window: how the image was looked at.
        convolve: what a part of the gradient becomes with some rows and columns of the filter, which come in
            ascending order and have to be flipped; ``VALID`` and with strides of 1.
    """
    batch, _, _, channels = shape
    split, lengths = phases(window)
    gradient, margins = pad_gradient(gradient, window)
    outputs = []
    for phase in split:
        if not phase.taps[0] or not phase.taps[1]:
            outputs.append(tf.zeros([batch, *lengths, channels]))
            continue
        # Taps follow each other at the stride, so that the windows that they belong to are neighbours, in reverse.
        start = [int(phase.windows[axis][0].min()) + margins[axis][0] for axis in (0, 1)]
        size = [lengths[axis] + len(phase.taps[axis]) - 1 for axis in (0, 1)]
        reached = part(gradient, {1: (start[0], size[0]), 2: (start[1], size[1])})
        outputs.append(convolve(reached, list(phase.taps[0]), list(phase.taps[1])))
    return interleave(outputs, window, lengths, batch, channels)


def interleave(
    parts: Sequence[tf.Tensor], window: Window, lengths: tuple[int, int], batch: int, channels: int
) -> tf.Tensor:
    """Puts the phases of the stride side by side and cuts the image's size out."""
    down, across = window.strides
    image = parts[0]
    if len(parts) > 1:
        stacked = tf.concat(parts, axis=3)
        if down == across:
            image = tf.nn.depth_to_space(stacked, down)
        else:
            image = tf.reshape(stacked, [batch * lengths[0], lengths[1], down, across * channels])
            image = tf.transpose(image, [0, 2, 1, 3]) if down > 1 else image
            image = tf.reshape(image, [batch, lengths[0] * down, lengths[1] * across, channels])
    if static_shape(image)[1:3] != window.image:
        image = tf.slice(image, [0, 0, 0, 0], [batch, *window.image, channels])
    return image


def _pair(values: Sequence[int]) -> tuple[int, int]:
    first, second = values
    return int(first), int(second)
