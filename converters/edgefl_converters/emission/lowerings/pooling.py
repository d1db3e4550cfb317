"""Gradients of pooling, overlapping or not."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from edgefl_converters.emission.lowerings.activations import positive
from edgefl_converters.emission.lowerings.windows import Window, gather_rows, pad_image, part
from edgefl_converters.emission.registry import Context, lowering
from edgefl_converters.emission.traced_ops import constant, static_shape

__all__ = ["LOWEST", "first_maximum", "reaching", "sum_back"]

LOWEST = float(np.finfo(np.float32).min)


@lowering("MaxPoolGrad")
def max_pool_grad(op: Any, inputs: Sequence[tf.Tensor], context: Context) -> Sequence[tf.Tensor]:
    """The gradient of a window goes to its maximum; of tied ones to the first, as TensorFlow does it."""
    image, output, gradient = inputs
    batch, height, width, channels = static_shape(image)
    window = _window(op, (height, width))
    if _tiles(window):
        return [_tiled_max_grad(image, output, gradient, window)]
    shape = [batch, window.count, 1, channels]
    seen = gather_rows(pad_image(image, window, LOWEST), window.axis_indices(0), window.axis_indices(1))
    taps = tf.split(seen, window.taps, axis=2)
    received = first_maximum(taps, tf.reshape(output, shape), tf.reshape(gradient, shape))
    flat = tf.reshape(tf.concat(received, axis=2), [batch, window.count * window.taps, channels])
    return [sum_back(flat, reaching(window, per_tap=True), window)]


@lowering("AvgPoolGrad")
def avg_pool_grad(op: Any, inputs: Sequence[tf.Tensor], context: Context) -> Sequence[tf.Tensor]:
    """The gradient of a window is shared evenly by the elements of it that lie inside the image."""
    gradient = inputs[1]
    batch, height, width, channels = (int(size) for size in constant(op, 0))
    window = _window(op, (height, width))
    if _tiles(window):
        share = gradient * np.float32(1.0 / window.taps)
        return [_untile([[share] * window.kernel[1]] * window.kernel[0], window)]
    inside = _inside(window, 0)[:, None] * _inside(window, 1)[None, :]
    share = gradient * (1.0 / inside).astype(np.float32)[None, :, :, None]
    flat = tf.reshape(share, [batch, window.count, channels])
    return [sum_back(flat, reaching(window, per_tap=False), window)]


def _window(op: Any, image: tuple[int, int]) -> Window:
    size = op.get_attr("ksize")
    return Window.of(op, image, (size[1], size[2]))


def _tiles(window: Window) -> bool:
    """True when the windows cover the image without overlap, padding or rest."""
    return (
        window.kernel == window.strides
        and window.before == (0, 0)
        and all(count * size == length for count, size, length in zip(window.positions, window.kernel, window.image))
    )


def first_maximum(taps: Sequence[tf.Tensor], maximum: tf.Tensor, gradient: tf.Tensor) -> list[tf.Tensor]:
    """Gives each tap the gradient where it is the first that equals the maximum.

    Args:
        taps: of each window, each of one shape.
        maximum: of each window.
        gradient: of each maximum.
    """
    received, rest = [], gradient
    for tap in taps[:-1]:
        left = rest * positive(maximum - tap)
        received.append(rest - left)
        rest = left
    # One of the taps is the maximum, so the last one gets what no other took.
    return [*received, rest]


def _tiled_max_grad(image: tf.Tensor, output: tf.Tensor, gradient: tf.Tensor, window: Window) -> tf.Tensor:
    batch, _, _, channels = static_shape(image)
    (down, across), (rows, columns) = window.kernel, window.positions
    tiles = tf.reshape(image, [batch * rows, down, columns, across * channels])
    # Cut out one by one: splitting rows, then columns, would copy all of it twice, and the last one is not looked at.
    taps = [
        part(tiles, {1: (row, 1), 3: (column * channels, channels)}) for row in range(down) for column in range(across)
    ]
    shape = [batch * rows, 1, columns, channels]
    received = first_maximum(taps, tf.reshape(output, shape), tf.reshape(gradient, shape))
    return _untile([received[row * across : (row + 1) * across] for row in range(down)], window)


def _untile(tiles: Sequence[Sequence[tf.Tensor]], window: Window) -> tf.Tensor:
    """Puts taps back into an image; ``tiles[row][column]`` holds that tap of all windows, which do not overlap."""
    (down, across), (rows, columns) = window.kernel, window.positions
    first = tiles[0][0]
    channels = static_shape(first)[-1]
    batch = first.shape.num_elements() // (rows * columns * channels)
    shape = [batch * rows, 1, columns, channels]
    strips = [tf.concat([tf.reshape(tap, shape) for tap in strip], axis=3) for strip in tiles]
    whole = strips[0] if down == 1 else tf.concat(strips, axis=1)
    return tf.reshape(whole, [batch, rows * down, columns * across, channels])


def sum_back(flat: tf.Tensor, table: NDArray[np.int32], window: Window) -> tf.Tensor:
    """Adds up for every element of the image the entries of the table; an index one past the end counts nothing.

    Args:
        flat: what there is to add up, ``[B, entries, C]``.
        table: as `reaching` makes it.
        window: how the image was looked at.
    """
    batch, count, channels = static_shape(flat)
    if (table == count).any():
        flat = tf.pad(flat, [[0, 0], [0, 1], [0, 0]])
    gathered = tf.gather(flat, table, axis=1)
    summed = tf.reduce_sum(gathered, axis=2) if table.shape[1] > 1 else gathered
    return tf.reshape(summed, [batch, *window.image, channels])


def reaching(window: Window, *, per_tap: bool) -> NDArray[np.int32]:
    """Returns for every element of the image the windows (or their taps) that see it; ``[H * W, most]``, padded.

    Args:
        window: how the image is looked at.
        per_tap: count taps of windows, not windows.
    """
    reaching: list[list[int]] = [[] for _ in range(window.image[0] * window.image[1])]
    rows, columns = (window.axis_indices(axis) - window.before[axis] for axis in (0, 1))
    for (down, across), _ in np.ndenumerate(np.empty(window.positions)):
        for tap_row, row in enumerate(rows[down]):
            for tap_column, column in enumerate(columns[across]):
                if 0 <= row < window.image[0] and 0 <= column < window.image[1]:
                    index = down * window.positions[1] + across
                    if per_tap:
                        index = index * window.taps + tap_row * window.kernel[1] + tap_column
                    reaching[row * window.image[1] + column].append(index)
    most = max(1, max(map(len, reaching)))
    nothing = window.count * (window.taps if per_tap else 1)
    return np.asarray([each + [nothing] * (most - len(each)) for each in reaching], np.int32)


def _inside(window: Window, axis: int) -> NDArray[np.float32]:
    """Tells how many taps of each window lie inside the image, along one axis."""
    indices = window.axis_indices(axis) - window.before[axis]
    inside: NDArray[np.bool_] = (indices >= 0) & (indices < window.image[axis])
    count: NDArray[np.float32] = inside.sum(axis=1).astype(np.float32)
    return count
