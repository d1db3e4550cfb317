"""Losses over a batch of which some rows are padding.

A training step gets row weights ``user weight x B / n`` on its n real rows and 0 on padding. Keras divides a loss by
B, so the gradient is that of a batch of n rows.
"""

from __future__ import annotations

from typing import Any

import tensorflow as tf

__all__ = ["RowWeightedLoss", "expand", "real_rows"]


def real_rows(sample_weight: tf.Tensor) -> tf.Tensor:
    """1.0 for every row with a weight above 0, else 0.0; shape ``[B]``."""
    return tf.cast(sample_weight > 0.0, tf.float32)


def expand(sample_weight: tf.Tensor, prediction: tf.Tensor) -> tf.Tensor:
    """Gives row weights ``[B]`` the rank of a loss per position, so that they never broadcast along another axis."""
    rank = max(1, len(prediction.shape) - 1)
    return sample_weight if rank == 1 else tf.reshape(sample_weight, [-1] + [1] * (rank - 1))


class RowWeightedLoss:
    """A Keras loss of one output, over the real rows of a batch.

    Args:
        loss: the compiled ``keras.losses.Loss``.
    """

    def __init__(self, loss: Any) -> None:
        self._loss = loss
        self.name = loss.name

    def __call__(self, target: tf.Tensor, prediction: tf.Tensor, sample_weight: tf.Tensor) -> tf.Tensor:
        """Computes the loss; ``sample_weight`` has shape ``[B]``, user weights times B / n."""
        value = self._loss(target, prediction, expand(sample_weight, prediction))
        if self._loss.reduction == "sum":
            # The factor B / n is for losses that divide by B; a sum does not divide.
            value *= tf.reduce_mean(real_rows(sample_weight))
        return value
