"""The discrete Fourier transform as products with constant matrices, in two stages where a length has factors.

Cooley and Tukey 1965: for a length n = a * b, transforms of length a, a rotation of each result, and
transforms of length b.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from edgefl_converters.emission.lowerings.matmul import matmul
from edgefl_converters.emission.traced_ops import static_shape

__all__ = ["fourier", "half_fourier_back"]

_Times = Callable[[tf.Tensor, NDArray[np.float64]], tf.Tensor]

_WHOLE = 64
"""Lengths up to this one are a single product: two smaller ones would be more ops and hardly fewer multiplications."""


def fourier(
    real: tf.Tensor, imag: tf.Tensor | None, axis: int, outputs: int | None = None
) -> tuple[tf.Tensor, tf.Tensor]:
    """Transforms along an axis.

    Args:
        real: the real part.
        imag: the imaginary part; None where it is zero.
        axis: counted from the end.
        outputs: how many frequencies are wanted, from the lowest; all of them if not given.
    """
    rank, length = len(static_shape(real)), static_shape(real)[axis]
    order = [each for each in range(rank) if each != rank + axis] + [rank + axis]
    back = [order.index(each) for each in range(rank)]
    moved = axis != -1
    if moved:
        real, imag = tf.transpose(real, order), None if imag is None else tf.transpose(imag, order)
    real, imag = _last_axis(real, imag, length, outputs or length)
    return (tf.transpose(real, back), tf.transpose(imag, back)) if moved else (real, imag)


def half_fourier_back(real: tf.Tensor, imag: tf.Tensor, length: int) -> tf.Tensor:
    """Real numbers from the lower half of their frequencies, along the last axis.

    Args:
        real: real parts of ``length // 2 + 1`` frequencies.
        imag: their imaginary parts.
        length: of the result.
    """
    upper = (length - 1) // 2
    if length <= _WHOLE or _factor(length) == 1:
        frequencies = np.arange(length // 2 + 1)
        twice = np.where((frequencies == 0) | (2 * frequencies == length), 1.0, 2.0)[:, None] / length
        angles = 2 * np.pi * (np.outer(frequencies, np.arange(length)) % length) / length
        return _times(real, np.cos(angles) * twice) - _times(imag, np.sin(angles) * twice)
    # The upper half mirrors the lower one; then parts exchanged transform back.
    first, count = [0] * (len(static_shape(real)) - 1) + [1], [*static_shape(real)[:-1], upper]
    mirrored = [tf.reverse(tf.slice(each, first, count), [-1]) for each in (real, imag)]
    whole_imag = tf.concat([imag, -mirrored[1]], axis=-1)
    _, back = _last_axis(whole_imag, tf.concat([real, mirrored[0]], axis=-1), length, length)
    return back / length


def _last_axis(real: tf.Tensor, imag: tf.Tensor | None, length: int, outputs: int) -> tuple[tf.Tensor, tf.Tensor]:
    factor = 1 if length <= _WHOLE else _factor(length)
    if factor == 1:
        angles = -2 * np.pi * (np.outer(np.arange(length), np.arange(outputs)) % length) / length
        return _rotated(real, imag, np.cos(angles), np.sin(angles), _times)
    rest, before = length // factor, static_shape(real)[:-1]
    count = int(np.prod(before))
    # Elements j = rest * p + q to frequencies k = r + factor * s.
    columns = [
        None if each is None else tf.transpose(tf.reshape(each, [count, factor, rest]), [0, 2, 1])
        for each in (real, imag)
    ]
    real, imag = _last_axis(columns[0], columns[1], factor, factor)  # [count, q, r]
    angles = -2 * np.pi * np.outer(np.arange(rest), np.arange(factor)) / length
    real, imag = _rotated(real, imag, np.cos(angles), np.sin(angles), _each)
    real, imag = (tf.transpose(each, [0, 2, 1]) for each in (real, imag))
    real, imag = _last_axis(real, imag, rest, rest)  # [count, r, s]
    flat = [tf.reshape(tf.transpose(each, [0, 2, 1]), [*before, length]) for each in (real, imag)]
    if outputs < length:
        flat = [tf.slice(each, [0] * (len(before) + 1), [*before, outputs]) for each in flat]
    return flat[0], flat[1]


def _factor(length: int) -> int:
    """The largest factor that is not above the square root."""
    return next(each for each in range(math.isqrt(length), 0, -1) if length % each == 0)


def _rotated(
    real: tf.Tensor, imag: tf.Tensor | None, cosine: NDArray[np.float64], sine: NDArray[np.float64], times: _Times
) -> tuple[tf.Tensor, tf.Tensor]:
    if imag is None:
        return times(real, cosine), times(real, sine)
    return times(real, cosine) - times(imag, sine), times(real, sine) + times(imag, cosine)


def _times(rows: tf.Tensor, matrix: NDArray[np.float64]) -> tf.Tensor:
    *before, length = static_shape(rows)
    flat = tf.reshape(rows, [int(np.prod(before)), length])
    product = matmul(flat, tf.constant(matrix, rows.dtype))
    return tf.reshape(product, [*before, matrix.shape[1]])


def _each(values: tf.Tensor, factors: NDArray[np.float64]) -> tf.Tensor:
    return values * tf.constant(factors, values.dtype)
