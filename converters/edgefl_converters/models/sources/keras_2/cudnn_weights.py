"""Weights of CuDNNLSTM and CuDNNGRU, as the plain layers that compute the same have them.

As ``_convert_rnn_weights`` in ``saving/legacy/hdf5_format.py`` of github.com/keras-team/tf-keras does it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["all_plain", "plain_weights"]

Array = NDArray[Any]
_LSTM_GATES, _GRU_GATES = 4, 3


def plain_weights(saved: Sequence[Array]) -> list[Array] | None:
    """The weights of LSTM, or of GRU with ``reset_after``, from those of the layer of cuDNN.

    A kernel lies there as cuDNN reads it, column by column for each gate, and both halves of a step have biases.

    Args:
        saved: kernel ``[features, gates × units]``, recurrent kernel ``[units, gates × units]`` and biases
            ``[2 × gates × units]``.

    Returns:
        Kernel and recurrent kernel of these shapes, and the biases ``[4 × units]`` or ``[2, 3 × units]``; None if
        they are not of one of these layers.
    """
    shapes = [np.shape(each) for each in saved]
    if len(saved) != 3 or [len(each) for each in shapes] != [2, 2, 1]:
        return None
    units, columns = shapes[1]
    gates = columns // units if units else 0
    if gates not in (_LSTM_GATES, _GRU_GATES) or columns != gates * units or shapes[0][1] != columns:
        return None
    if shapes[2] != (2 * columns,):
        return None
    kernel, recurrent, biases = map(np.asarray, saved)
    plain = [
        np.hstack([each.T.reshape(each.shape, order="F") for each in np.hsplit(kernel, gates)]),
        np.hstack([each.T for each in np.hsplit(recurrent, gates)]),
    ]
    halves = biases.reshape(2, columns)
    return [*plain, halves.sum(axis=0) if gates == _LSTM_GATES else halves]


def all_plain(saved: Sequence[tuple[str, Array]]) -> list[tuple[str, Array]]:
    """The same with every three weights of a layer of cuDNN made plain.

    Args:
        saved: names and values, those of a layer one after the other.
    """
    found: list[tuple[str, Array]] = []
    while len(found) < len(saved):
        three = saved[len(found) : len(found) + 3]
        plain = plain_weights([value for _, value in three])
        found += three[:1] if plain is None else zip([name for name, _ in three], plain, strict=True)
    return found
