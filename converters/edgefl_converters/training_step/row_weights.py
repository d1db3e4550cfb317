"""Losses over a batch of which some rows are padding.

A training step gets row weights ``user weight x B / n`` on its n real rows and 0 on padding. Keras divides a loss by
B, so the gradient is that of a batch of n rows.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from typing import Any

import tensorflow as tf
from keras.src.backend import get_keras_mask, set_keras_mask

from edgefl.errors import UnsupportedModelError

__all__ = ["RowWeightedLoss", "activity_of_real_rows", "expand", "real_rows"]


def real_rows(sample_weight: tf.Tensor) -> tf.Tensor:
    """1.0 for every row with a weight above 0, else 0.0; shape ``[B]``."""
    return tf.cast(sample_weight > 0.0, tf.float32)


def expand(sample_weight: tf.Tensor, prediction: tf.Tensor) -> tf.Tensor:
    """Gives row weights ``[B]`` the rank of a loss per position, so that they never broadcast along another axis."""
    rank = max(1, len(prediction.shape) - 1)
    return sample_weight if rank == 1 else tf.reshape(sample_weight, [-1] + [1] * (rank - 1))


class RowWeightedLoss:
    """A Keras loss of one output, over the real rows of a batch or of one of the equal parts that it is cut into.

    The mean over the parts is the loss of the batch.

    Args:
        loss: the compiled ``keras.losses.Loss``.
        parts: how many there are.

    Attributes:
        batch_weight: the row weights of the whole batch, to be set before the loss of a part is computed.
    """

    def __init__(self, loss: Any, parts: int = 1) -> None:
        self._loss = loss
        self._parts = parts
        self.name = loss.name
        self.batch_weight: tf.Tensor | None = None

    def __call__(self, target: tf.Tensor, prediction: tf.Tensor, sample_weight: tf.Tensor) -> tf.Tensor:
        """Computes the loss; ``sample_weight`` has shape ``[B]``, user weights times B / n."""
        mask = get_keras_mask(prediction)
        if self._parts == 1:
            return self._of_batch(target, prediction, sample_weight, mask)
        if mask is not None or self._ignores_a_class() or self._is_of_the_whole_batch() or not self._reduces():
            raise UnsupportedModelError(
                f"The loss {self.name!r} cannot be computed for a part of a batch: {self._why_not(mask)}.",
                hint="Leave `micro_batch` out; a smaller `batch_size` needs less memory too.",
            )
        return self._of_part(target, prediction, sample_weight)

    def _of_part(self, target: tf.Tensor, prediction: tf.Tensor, sample_weight: tf.Tensor) -> tf.Tensor:
        """A part of a batch: what Keras divides by has to be the whole batch's."""
        batch_weight = self.batch_weight
        weight = expand(sample_weight, prediction)
        if self._loss.reduction == "sum":
            return self._loss(target, prediction, weight * self._parts * tf.reduce_mean(real_rows(batch_weight)))
        loss = self._loss(target, prediction, weight)
        if self._loss.reduction == "mean_with_sample_weight":
            share = tf.math.divide_no_nan(tf.reduce_sum(sample_weight), tf.reduce_sum(batch_weight))
            return loss * (self._parts * share)
        return loss

    def _why_not(self, mask: Any) -> str:
        if mask is not None or self._ignores_a_class():
            return "it divides by the positions of the whole batch that are not masked"
        return "it is a quotient of sums over the whole batch" if self._reduces() else "it has no reduction"

    def _reduces(self) -> bool:
        return self._loss.reduction not in (None, "none")

    def _of_batch(self, target: tf.Tensor, prediction: tf.Tensor, sample_weight: tf.Tensor, mask: Any) -> tf.Tensor:
        real = real_rows(sample_weight)
        if mask is not None or self._ignores_a_class():
            # Keras divides by the positions that are not masked: those of padding must not count.
            positions = _per_row(real, len(prediction.shape) - 1) * tf.ones(prediction.shape[:-1])
            real_positions = positions > 0.0
            prediction = tf.identity(prediction)
            set_keras_mask(prediction, real_positions if mask is None else tf.logical_and(mask, real_positions))
            sample_weight *= tf.reduce_mean(real)
        elif self._loss.reduction == "sum":
            # The factor B / n is for losses that divide by B; a sum does not divide.
            sample_weight *= tf.reduce_mean(real)
        if self._is_of_the_whole_batch():
            target = target * _per_row(real, len(target.shape))
            prediction = prediction * _per_row(real, len(prediction.shape))
        return self._loss(target, prediction, expand(sample_weight, prediction))

    def _settings(self) -> dict[str, Any]:
        return dict(getattr(self._loss, "_fn_kwargs", {}))

    def _ignores_a_class(self) -> bool:
        return self._settings().get("ignore_class") is not None

    def _is_of_the_whole_batch(self) -> bool:
        """Dice and Tversky without an axis: quotients of sums over everything, in which zeros do not count."""
        name = getattr(getattr(self._loss, "fn", None), "__name__", "")
        return name in ("dice", "tversky") and self._settings().get("axis") is None


@contextlib.contextmanager
def activity_of_real_rows(layers: Iterable[Any], sample_weight: tf.Tensor, batch_weight: tf.Tensor) -> Iterator[None]:
    """Lets regularizers of activations see zeros in padding rows, and Keras divide by the real ones.

    Args:
        layers: of the model.
        sample_weight: of the rows that the layers see, 0 on padding rows.
        batch_weight: of the whole batch; the mean over its equal parts is then what it gives.
    """
    regularized = [(layer, layer.activity_regularizer) for layer in layers if layer.activity_regularizer is not None]
    real = real_rows(sample_weight)
    share = tf.reduce_mean(real_rows(batch_weight))
    for layer, regularizer in regularized:
        layer.activity_regularizer = _OfRealRows(regularizer, real, share)
    try:
        yield
    finally:
        for layer, regularizer in regularized:
            layer.activity_regularizer = regularizer


class _OfRealRows:
    def __init__(self, regularizer: Any, real: tf.Tensor, share: tf.Tensor) -> None:
        self._regularizer = regularizer
        self._real = real
        self._share = share

    def __call__(self, activation: tf.Tensor) -> tf.Tensor:
        if activation.shape.rank == 0 or activation.shape[0] != self._real.shape[0]:
            return self._regularizer(activation)
        value = self._regularizer(activation * _per_row(self._real, activation.shape.rank))
        return value / tf.maximum(self._share, 1e-9)


def _per_row(values: tf.Tensor, rank: int) -> tf.Tensor:
    return tf.reshape(values, [-1] + [1] * (rank - 1))
